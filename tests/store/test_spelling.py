"""A URL means one place to whoever writes, reads or signs there, or is refused with the spelling that was meant."""

from collections.abc import Callable
from pathlib import Path

import pytest

from megacache._runtime import Deadline
from megacache._store import Store, check_url, lasting_url
from megacache._store.scope import scope_of
from megacache.errors import SettingsError
from tests.kit.builders import artifacts
from tests.kit.torchless import Compiler


def opened(url: str) -> Store:
    """Open a store that nobody answers for."""
    return Store.open(url, storage_options=None, deadline=Deadline.after(5))


ASKING: list[Callable[[str], object]] = [check_url, lambda url: lasting_url([url]), scope_of, opened]
"""Whoever takes a URL."""


@pytest.mark.parametrize(
    ("url", "hint"),
    [
        ("s3:bucket/flux", "s3://bucket/flux"),
        ("s3:/bucket/flux", "s3://bucket/flux"),
        ("s3//bucket/flux", "s3://bucket/flux"),
        ("gs//bucket/flux", "gs://bucket/flux"),
        ("hf:datasets/me/flux", "hf://datasets/me/flux"),
        ("https:/host/flux", "https://host/flux"),
        ("sftp:/host/flux", "sftp://host/flux"),
        ("ftp:host/flux", "ftp://host/flux"),
        ("oss:/bucket/flux", "oss://bucket/flux"),
        ("S3:/bucket/flux", "s3://bucket/flux"),
        ("zip:/flux::https://host/all.zip", "zip://flux::https://host/all.zip"),
        ("file:/var/cache", "file:///var/cache"),
        ("file:var/cache", "file:///var/cache"),
        ("file://localhost/var/cache", "file:///var/cache"),
        ("file://localhost", "file:///"),
        ("file://var/cache", "file:///var/cache, or ./var/cache"),
        ("s3://bucket//flux", "s3://bucket/flux"),
        ("s3://bucket//flux//v1/", "s3://bucket/flux/v1"),
        ("s3:///bucket/flux", "s3://bucket/flux"),
        ("gs://bucket/flux//v1", "gs://bucket/flux/v1"),
        ("az://container//flux", "az://container/flux"),
        (" s3://bucket/flux", "s3://bucket/flux"),
        ("s3://bucket/flux\n", "s3://bucket/flux"),
        ("simplecache::s3://bucket//flux", "s3://bucket/flux"),
    ],
)
def test_misspelt_url_is_refused(url: str, hint: str) -> None:
    """Nobody takes it for a folder, or for a place of another name, and the error says what may be meant."""
    for ask in ASKING:
        with pytest.raises(SettingsError) as caught:
            ask(url)
        assert caught.value.hint == f"did you mean {hint}?"


@pytest.mark.parametrize("url", ["s3:/bucket/x", "file://localhost/x", "s3://bucket//x", "s3://bucket/x?v=2"])
def test_no_verb_takes_it_for_a_folder(
    url: str, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A verb says what is wrong, and leaves nothing in the working directory."""
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    compiler.compile(*artifacts(1))
    for verb in (compiler.publish, compiler.warm):
        result = verb(url, {}, 5)
        assert result.status == "unavailable"
        assert isinstance(result.error, SettingsError)
        assert "did you mean" in result.reason or "use another URL" in result.reason
    assert list(Path().iterdir()) == []


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/flux/",
        "s3://bucket//",
        "file:///var/cache",
        "file:///a//b",
        "file:///a/what?/b",
        "file://~/cache",
        "gsm/flux",
        "memory://a//b",
        "hf://datasets/me/flux@main/v1",
        "zip://flux::https://host/caches.zip?sig=TOKEN",
        "",
    ],
)
def test_url_of_one_place_is_taken(url: str) -> None:
    """What is spelt rightly passes, and the query of a file on the web that holds a store is its client's."""
    check_url(url)


def test_folder_of_a_strange_name_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is there is meant."""
    monkeypatch.chdir(tmp_path)
    Path("s3:bucket").mkdir()
    assert lasting_url(["s3:bucket"]) == f"{tmp_path}/s3:bucket"


@pytest.mark.parametrize(
    "url",
    [
        "s3://bucket/flux?v=2",
        "gs://bucket/flux?v=2",
        "memory://flux?v=2",
        "https://host/flux?sig=TOKEN",
        "s3://bucket?epoch=2/flux/v1",
        "/a/b?epoch=",
        "simplecache::s3://bucket/flux?v=2",
        "dir::s3://bucket/flux?v=2",
    ],
)
def test_query_is_refused(url: str) -> None:
    """A query would be part of the place for its client, and of no signature; it is not told again."""
    for ask in ASKING:
        with pytest.raises(
            SettingsError, match="has no query; use another URL, such as one that ends in /v2"
        ) as caught:
            ask(url)
        assert "TOKEN" not in str(caught.value)
