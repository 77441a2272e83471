"""Every bad bundle of the corpus is refused, for its own reason, before anything of it is used."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from megacache._bundle import parse_blob
from megacache._cache import WarmResult
from megacache._cli.app import app
from megacache._trust import TrustPolicy
from tests.corpus.make import FOLDER, MEMBERS, read
from tests.corpus.stores import CACHES, signer
from tests.kit.builders import open_store
from tests.kit.without_torch import WatchedFolder, warm

FORMAT, INTEGRITY, UNTRUSTED = "FormatError", "IntegrityError", "UntrustedError"
NOT_PYTORCH, NOT_COMPILER = "is not one that PyTorch writes", "is not one that a compiler writes"

REFUSED: dict[str, tuple[str, str]] = {
    "truncated-manifest": (FORMAT, "envelope: not msgpack: it ends too soon"),
    "empty-manifest": (FORMAT, "envelope: not msgpack: it ends too soon"),
    "other-payload-type": (FORMAT, "envelope.payloadType: expected application/vnd.megacache"),
    "wrong-bundle-name": (FORMAT, f"under the name of {'0' * 32}"),
    "pickle-instead-of-msgpack": (FORMAT, "envelope: not msgpack"),
    "pickle-as-payload": (FORMAT, "manifest: not msgpack"),
    "msgpack-extension": (FORMAT, "manifest: not msgpack: extension type 1 of 9 bytes"),
    "msgpack-deep-nesting": (FORMAT, "manifest: not msgpack: values are nested more than 32 deep"),
    "msgpack-huge-count": (FORMAT, "manifest: not msgpack: more than 1048576 values are announced"),
    "msgpack-many-values": (FORMAT, "manifest: not msgpack: more than 1048576 values are announced"),
    "duplicate-keys": (FORMAT, "manifest: not msgpack: a field stands twice in one map"),
    "negative-size": (FORMAT, "manifest.artifacts[0][3]: expected an integer from 0"),
    "guard-of-numbers": (FORMAT, "manifest.artifacts[0][4]: expected a string"),
    "too-many-operators": (FORMAT, "manifest.operators: expected a map of at most 4096"),
    "operator-of-code": (FORMAT, "manifest.operators.shop::bump: expected a string"),
    "chunk-of-terabytes": (FORMAT, "manifest.chunks[0][2]: expected an integer from 0"),
    "too-many-labels": (FORMAT, "manifest.labels: expected a map of at most 256"),
    "too-many-chunks": (FORMAT, "manifest.chunks: expected an array of at most 16384"),
    "too-many-signatures": (FORMAT, "envelope.signatures: expected an array of at most 64"),
    "digest-of-another-kind": (FORMAT, "manifest.chunks[0][1]: not a sha256 digest"),
    "artifacts-without-chunks": (FORMAT, "3 artifacts of the manifest are in no chunk"),
    "chunk-truncated": (INTEGRITY, "is damaged: expected sha256:"),
    "chunk-flipped": (INTEGRITY, "is damaged: expected sha256:"),
    "stored-size-lie": (INTEGRITY, "is damaged: expected 1000, got 275"),
    "chunk-bomb": (FORMAT, "not a zstd frame"),
    "chunk-bomb-without-size": (INTEGRITY, "size of the chunk is damaged"),
    "raw-size-lie": (INTEGRITY, "size of the chunk is damaged: expected 100, got 262"),
    "frame-size-lie": (FORMAT, "not a zstd frame"),
    "not-zstd": (FORMAT, "not a zstd frame"),
    "two-frames": (FORMAT, "not a zstd frame"),
    "unknown-codec": (FORMAT, "has codec 'lzma', not zstd"),
    "blob-crc": (INTEGRITY, "blob is damaged: expected crc32"),
    "blob-length-lie": (FORMAT, "18446744073709551615 bytes announced"),
    "blob-version": (FORMAT, "blob of version 2, not 1"),
    "blob-of-repeats": (FORMAT, "a chunk holds more than the 2 artifacts of the manifest"),
    "unknown-kind": (UNTRUSTED, f"artifact of kind 'shell' with key 'k' {NOT_PYTORCH}"),
    "precompile-kind": (UNTRUSTED, "artifact of kind 'precompile'"),
    "key-traversal": (UNTRUSTED, f"'../../../escaped' {NOT_PYTORCH}"),
    "key-dotdot": (UNTRUSTED, f"'..' {NOT_PYTORCH}"),
    "key-absolute": (UNTRUSTED, f"'/tmp/escaped.best_config' {NOT_PYTORCH}"),
    "key-nul": (UNTRUSTED, f"'a\\x00b' {NOT_PYTORCH}"),
    "key-overlong": (UNTRUSTED, f"kkk' {NOT_PYTORCH}"),
    "key-hidden-in-chunk": (UNTRUSTED, f"'../../../escaped' {NOT_PYTORCH}"),
    "artifact-not-in-manifest": (FORMAT, "inductor artifact 'other' of 7 bytes is not one of the manifest"),
    "artifact-of-another-digest": (FORMAT, "of 7 bytes is not one of the manifest"),
    "path-absolute": (UNTRUSTED, f"'/tmp/escaped.so' {NOT_COMPILER}"),
    "path-dotdot": (UNTRUSTED, f"'../../escaped.so' {NOT_COMPILER}"),
    "path-nul": (UNTRUSTED, f"'ab/escaped.so\\x00.so' {NOT_COMPILER}"),
    "path-backslash": (UNTRUSTED, f"escaped.so' {NOT_COMPILER}"),
    "path-overlong": (UNTRUSTED, f"aaa' {NOT_COMPILER}"),
    "path-hidden": (UNTRUSTED, f"'ab/.escaped.so' {NOT_COMPILER}"),
    "path-device": (UNTRUSTED, f"'dev/null' {NOT_COMPILER}"),
    "path-hidden-in-chunk": (UNTRUSTED, f"'../../escaped.so' {NOT_COMPILER}"),
    "source-file": (UNTRUSTED, f"'ab/escaped.py' {NOT_COMPILER}"),
    "device-mode": (FORMAT, "manifest.files.index[0][4]: expected an integer from 0 to 511"),
    "setuid-mode": (FORMAT, "manifest.files.index[0][4]: expected an integer from 0 to 511"),
    "file-twice": (FORMAT, "files: expected an array of at most 1"),
    "file-not-in-manifest": (FORMAT, "'ab/other.so' of 7 bytes is not the one in the manifest"),
    "files-extension": (FORMAT, "files: not msgpack: extension type 5 of 9 bytes"),
    "files-deep-nesting": (FORMAT, "files: not msgpack: values are nested more than 32 deep"),
    "unsigned": (UNTRUSTED, "none of the trusted keys has signed it"),
    "tampered-signature": (UNTRUSTED, "find out who changed it"),
    "signed-for-another-cache": (UNTRUSTED, "it is signed for memory:///megacache-corpus/another"),
    "signed-under-another-name": (UNTRUSTED, f"under the name of {'0' * 32}"),
    "signed-for-another-environment": (UNTRUSTED, "manifest.environment: the manifest of some-device-name/"),
}
"""Members, and the fault that a warm start and `megacache verify` name."""
MISSED: dict[str, tuple[str, str, str]] = {
    "future-major": (
        "manifest.format: major version 2",
        "UnsupportedFormatError",
        "manifest.format: major version 2, this megacache reads 1; upgrade megacache",
    ),
    "moved-environment": (
        "triton is some triton here, other there",
        FORMAT,
        "manifest.environment: its environment belongs under some-device-name/",
    ),
    "chunk-missing": ("reading some-device-name/", "MissingError", "FileNotFoundError"),
}
"""Members that a warm start takes for absent, what it says, and the fault that `megacache verify` names."""
LEFT_OUT: dict[str, str] = {
    "root-unknown": "",
    "symlink": "the way to 'linked/escaped.so' goes through a symbolic link",
}
"""Members whose artifacts are sound, and whose file has no place on this disk, with what is said of it."""
SIGNED = {name for name in REFUSED if name.startswith(("signed", "unsigned", "tampered"))}


@pytest.fixture
def key(tmp_path: Path) -> Path:
    """Write the public key with which some members are signed."""
    path = tmp_path / "key.pub"
    public = signer().public_key._crypto_key()
    path.write_bytes(public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))
    return path


def unpacked(name: str) -> str:
    """Put a member into a store in memory, and give its URL."""
    url = f"{CACHES}/{name}"
    store = open_store(url)
    for stored, data in read(name).items():
        store.create(stored, data)
    return url


def warmed(name: str, watched_place: WatchedFolder, key: Path) -> WarmResult:
    """Make a warm start from a member."""
    policy = TrustPolicy.read([key]) if name in SIGNED else None
    return warm(open_store(unpacked(name)), watched_place, policy=policy)


def faults(name: str, key: Path, code: int) -> list[tuple[str, str]]:
    """Give the faults that `megacache verify` finds in a member."""
    trusted = ["--trusted-keys", str(key)] if name in SIGNED else []
    done = CliRunner().invoke(app, ["verify", unpacked(name), "--json", *trusted], catch_exceptions=False)
    assert done.exit_code == code, done.output
    (environment,) = json.loads(done.stdout)["environments"]
    return [(fault["kind"], fault["message"]) for bundle in environment["bundles"] for fault in bundle["faults"]]


def test_corpus_is_what_is_tested() -> None:
    """The files on disk, what makes them and what is expected of them are the same members, byte for byte."""
    assert {path.stem for path in FOLDER.glob("*.zip")} == set(MEMBERS)
    assert sorted([*REFUSED, *MISSED, *LEFT_OUT]) == sorted(MEMBERS)
    assert {name: dict(read(name)) for name in MEMBERS} == {name: dict(build()) for name, build in MEMBERS.items()}


@pytest.mark.parametrize("name", REFUSED)
def test_bad_bundle_is_refused(name: str, watched_place: WatchedFolder, key: Path) -> None:
    """A warm start names the fault, loads nothing and writes nothing."""
    fault, says = REFUSED[name]
    result = warmed(name, watched_place, key)
    assert (result.status, type(result.error).__name__) == (
        "untrusted" if fault == UNTRUSTED else "unavailable",
        fault,
    )
    assert says in result.reason
    assert (watched_place.loaded, watched_place.written) == ([], [])


@pytest.mark.parametrize("name", MISSED)
def test_bundle_of_others_is_missed(name: str, watched_place: WatchedFolder, key: Path) -> None:
    """What is of another time or place, or gone, is no fault, and nothing of it is used."""
    result = warmed(name, watched_place, key)
    assert (result.status, result.error) == ("miss", None)
    assert MISSED[name][0] in result.reason
    assert (watched_place.loaded, watched_place.written) == ([], [])


@pytest.mark.parametrize("name", LEFT_OUT)
def test_file_without_a_place_is_left_out(name: str, watched_place: WatchedFolder, key: Path) -> None:
    """Sound artifacts are loaded, and a file that would lie elsewhere is not written."""
    result = warmed(name, watched_place, key)
    assert (result.status, result.files) == ("loaded", 0)
    assert LEFT_OUT[name] in " ".join(result.warnings)
    assert [len(list(parse_blob(blob))) for blob in watched_place.loaded] == [2]
    assert watched_place.written == []


@pytest.mark.parametrize("name", [*REFUSED, *MISSED])
def test_verify_names_the_fault(name: str, key: Path) -> None:
    """`megacache verify` ends with 1, and names the fault of each bad bundle."""
    expected, says = REFUSED[name] if name in REFUSED else MISSED[name][1:]
    found = faults(name, key, code=1)
    assert {kind for kind, _ in found} == {expected}
    assert any(says in message for _, message in found)


@pytest.mark.parametrize("name", LEFT_OUT)
def test_verify_does_not_blame_a_store_for_this_disk(name: str, key: Path) -> None:
    """What only this disk refuses is sound in the store."""
    assert faults(name, key, code=0) == []
