"""What a URL is: how it is shown, where it ends, what lies below it, and which are folders of this machine."""

from pathlib import Path

import pytest

from megacache._store import below, lasting_url, local_folder, redacted, split_places, trimmed
from megacache.errors import SettingsError


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        ("s3://bucket/model", "s3://bucket/model"),
        ("file:///home/me/a@b/c", "file:///home/me/a@b/c"),
        ("ftp://me:secret@host/x", "ftp://host/x"),
        ("ftp://me:se@cret@host/x", "ftp://host/x"),
        ("https://host/x?token=secret", "https://host/x"),
        ("https://host/x?se=2030-01-01T00:00:00Z&sig=secret", "https://host/x"),
        ("simplecache::https://me:secret@host/x?sig=secret", "simplecache::https://host/x"),
        ("zip://a::ftp://me:secret@host/x.zip?sig=secret::s3://b", "zip://a::ftp://host/x.zip::s3://b"),
        ("asking s3://key:secret@host/x?t=1 failed", "asking s3://host/x failed"),
    ],
)
def test_shown_url_has_no_secret(url: str, shown: str) -> None:
    """User, password and query are taken out of a URL, in every link of a chain; the rest stays."""
    assert redacted(url) == shown


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("s3://bucket/x/", "s3://bucket/x"),
        ("s3://bucket//", "s3://bucket"),
        ("memory://", "memory://"),
        ("file:///", "file:///"),
        ("/", "/"),
        ("", ""),
    ],
)
def test_trailing_slashes_are_taken_off(url: str, found: str) -> None:
    """The slashes that belong to a protocol, or name the root, stay, for without them it is another place."""
    assert trimmed(url) == found


@pytest.mark.parametrize(
    ("url", "found"),
    [
        ("s3://bucket", "s3://bucket/flux/v1"),
        ("s3://bucket/x/", "s3://bucket/x/flux/v1"),
        ("memory://", "memory://flux/v1"),
        ("file:///", "file:///flux/v1"),
        ("/", "/flux/v1"),
    ],
)
def test_what_lies_below_has_one_slash_between(url: str, found: str) -> None:
    """However a URL ends, what lies below it is named in one way."""
    assert below(url, "flux/v1") == found


@pytest.mark.parametrize(
    ("url", "folder", "lasting"),
    [
        ("st", "{here}/st", "{here}/st"),
        ("./st/", "{here}/st", "{here}/st"),
        ("file://./st", "{here}/st", "file://{here}/st"),
        ("local:///a/../b", "/b", "local:///b"),
        ("~/st", "{home}/st", "{home}/st"),
        ("file://~/st", "{home}/st", "file://{home}/st"),
        ("s3://bucket/st", None, "s3://bucket/st"),
        ("memory://st", None, "memory://st"),
        ("simplecache::st", None, "simplecache::st"),
    ],
)
def test_local_folders_are_known(
    url: str, folder: str | None, lasting: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder is told from other places, as fsspec reads its URL, and lasts when the process moves elsewhere."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/me")
    places = {"here": tmp_path, "home": "/home/me"}
    assert local_folder(url) == (None if folder is None else Path(folder.format(**places)))
    assert lasting_url([url]) == lasting.format(**places)


@pytest.mark.parametrize(
    ("text", "places"),
    [
        ("s3://bucket/x", ["s3://bucket/x"]),
        ("/mnt/node s3://bucket/x", ["/mnt/node", "s3://bucket/x"]),
        ("/mnt/my node s3://my bucket/x", ["/mnt/my node", "s3://my bucket/x"]),
        ("~/node\n  file:///mnt/b ./c ../d", ["~/node", "file:///mnt/b", "./c", "../d"]),
        ("cache zip://x::https://host/x.zip simplecache::s3://b/x", None),
        ("/mnt/a b", ["/mnt/a b"]),
        ("\n/mnt/node\ns3://bucket/x\n", ["/mnt/node", "s3://bucket/x"]),
        ("s3://bucket/x ", ["s3://bucket/x "]),
        ("", []),
    ],
)
def test_places_are_told_apart(text: str, places: list[str] | None) -> None:
    """White space separates only where what follows begins as a place does: names may hold it."""
    expected = places if places is not None else text.split()
    assert split_places(text) == tuple(expected)


def test_lasting_places_are_told_apart_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is handed to other processes means the same places there; a folder that would not is refused."""
    monkeypatch.chdir(tmp_path)
    lasting = lasting_url(["my node", "s3://bucket/x"])
    assert lasting == f"{tmp_path}/my node s3://bucket/x"
    assert split_places(lasting) == (f"{tmp_path}/my node", "s3://bucket/x")
    with pytest.raises(SettingsError, match="cannot be told from two places"):
        lasting_url(["/mnt/with /slash"])
