"""A manifest is read as it was written, by this version and by later ones, or refused with the place."""

import re
from dataclasses import replace
from typing import Any

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megacache._bundle import FORMAT, ArtifactRef, ChunkRef, Digest, FileRef, FilesPart, Manifest, pack, seal, unseal
from megacache._bundle.envelope import PAYLOAD_TYPE
from megacache._bundle.manifest import MAX_CHUNK_SIZE
from megacache.errors import BundleError, FormatError, MegacacheError, UnsupportedFormatError
from tests.kit.builders import UNHURRIED, artifact, artifacts, bundle, environment, manifests

MANIFEST = bundle(
    artifacts(2), [artifact(kind="pgo")], here=environment({"threads": "8"}), labels={"commit": "1f"}
).manifest
DOCUMENT: dict[str, Any] = msgpack.unpackb(msgpack.unpackb(seal(MANIFEST))["payload"])


def enveloped(payload: bytes, payload_type: str = PAYLOAD_TYPE) -> bytes:
    """Put a payload into an envelope."""
    return pack({"payloadType": payload_type, "payload": payload, "signatures": []})


def read(**changes: object) -> Manifest:
    """Read the document after changing some of its fields."""
    return unseal(enveloped(pack({**DOCUMENT, **changes})))


@UNHURRIED
@given(manifests)
def test_what_is_sealed_is_unsealed(manifest: Manifest) -> None:
    """Every value of a manifest comes back, what is recorded beside the facts included."""
    found = unseal(seal(manifest))
    assert found == manifest
    assert found.environment.recorded == manifest.environment.recorded


@pytest.mark.parametrize(
    "manifest",
    [
        replace(MANIFEST, labels={"note": "x" * 20_000}),
        replace(MANIFEST, environment=environment({"TORCHINDUCTOR_OPTION": "x" * 20_000})),
        replace(MANIFEST, chunks=(replace(MANIFEST.chunks[0], raw_size=MAX_CHUNK_SIZE + 1),)),
        replace(MANIFEST, labels={"note": "\udcff"}),
    ],
    ids=["long label", "long variable", "large chunk", "label that is no UTF-8"],
)
def test_nothing_is_written_that_cannot_be_read(manifest: Manifest) -> None:
    """Sealing gives what unsealing reads, or refuses with an error of megacache's."""
    try:
        sealed = seal(manifest)
    except MegacacheError:
        return
    assert unseal(sealed) == manifest


def test_document_is_as_described() -> None:
    """The fields are those of this format version, and an envelope has no signature of its own."""
    fields = "artifacts bundle chunks created environment files format labels operators parents producer recorded"
    assert " ".join(sorted(DOCUMENT)) == fields
    assert DOCUMENT["format"] == list(FORMAT) == [1, 4]
    envelope = msgpack.unpackb(seal(MANIFEST))
    assert (envelope.keys(), envelope["signatures"]) == ({"payloadType", "payload", "signatures"}, [])


@pytest.mark.parametrize("major", [0, 2, 1 << 16])
def test_other_major_version_is_not_read_further(major: int) -> None:
    """Of a document of another major version only its version is looked at."""
    with pytest.raises(UnsupportedFormatError, match=f"major version {major}, this megacache reads 1") as caught:
        unseal(enveloped(pack({"format": [major, 0], "everything": "else"})))
    assert (caught.value.path, caught.value.hint) == ("manifest.format", "upgrade megacache")


def test_later_minor_version_is_read() -> None:
    """A later minor version may add fields and lengthen rows; what is known is read."""
    longer = {name: [[*row, "new", 1] for row in DOCUMENT[name]] for name in ("artifacts", "chunks")}
    assert read(format=[1, 99, "beta"], explanation={"new": [1, 2]}, **longer) == MANIFEST


def test_envelope_may_hold_more() -> None:
    """Signatures and unknown fields of an envelope do not matter to who reads the manifest."""
    envelope = msgpack.unpackb(seal(MANIFEST))
    assert unseal(pack({**envelope, "signatures": [{"keyid": "k", "sig": b"s"}], "new": 1})) == MANIFEST


@pytest.mark.parametrize("name", sorted(DOCUMENT.keys() - {"files", "operators"}))
def test_each_field_must_be_there(name: str) -> None:
    """A missing field is a `FormatError` that names it."""
    with pytest.raises(FormatError, match=f"^manifest: no field '{name}'"):
        unseal(enveloped(pack({field: value for field, value in DOCUMENT.items() if field != name})))


@pytest.mark.parametrize("name", ["payloadType", "payload", "signatures"])
def test_envelope_must_be_complete(name: str) -> None:
    """A missing field of the envelope is a `FormatError` that names it."""
    envelope = msgpack.unpackb(seal(MANIFEST))
    del envelope[name]
    with pytest.raises(FormatError, match=f"^envelope: no field '{name}'"):
        unseal(pack(envelope))


ARTIFACT = ["inductor", "k", f"sha256:{'0' * 64}", 1]
FILE = ["inductor", "ab/x.so", f"sha256:{'0' * 64}", 1, 0o755]
FILES: dict[str, object] = {"guard": {}, "probes": [], "index": []}
CHUNK = ["artifacts", f"sha256:{'0' * 64}", 1, 1, "zstd"]


@pytest.mark.parametrize(
    ("change", "path"),
    [
        ({"format": 1}, "manifest.format"),
        ({"format": [1]}, "manifest.format"),
        ({"format": ["1", 0]}, "manifest.format[0]"),
        ({"format": [1, -1]}, "manifest.format[1]"),
        ({"bundle": 1}, "manifest.bundle"),
        ({"created": 1}, "manifest.created"),
        ({"producer": None}, "manifest.producer"),
        ({"environment": {"torch_version": 2}}, "manifest.environment.torch_version"),
        ({"recorded": {"threads": 8}}, "manifest.recorded.threads"),
        ({"parents": "ab"}, "manifest.parents"),
        ({"parents": ["ab", 1]}, "manifest.parents[1]"),
        ({"labels": ["ab"]}, "manifest.labels"),
        ({"artifacts": {}}, "manifest.artifacts"),
        ({"artifacts": [ARTIFACT, ARTIFACT[:3]]}, "manifest.artifacts[1]"),
        ({"artifacts": [[1, *ARTIFACT[1:]]]}, "manifest.artifacts[0][0]"),
        ({"artifacts": [[*ARTIFACT[:2], "md5:0", 1]]}, "manifest.artifacts[0][2]"),
        ({"artifacts": [[*ARTIFACT[:3], -1]]}, "manifest.artifacts[0][3]"),
        ({"artifacts": [[*ARTIFACT[:3], 1 << 51]]}, "manifest.artifacts[0][3]"),
        ({"artifacts": [[*ARTIFACT, 1]]}, "manifest.artifacts[0][4]"),
        ({"files": []}, "manifest.files"),
        ({"files": {**FILES, "guard": {"compiler": 1}}}, "manifest.files.guard.compiler"),
        ({"files": {**FILES, "probes": [b"p"]}}, "manifest.files.probes[0]"),
        ({"files": {**FILES, "index": [FILE[:4]]}}, "manifest.files.index[0]"),
        ({"files": {**FILES, "index": [FILE, [*FILE[:4], 0o1755]]}}, "manifest.files.index[1][4]"),
        ({"files": {**FILES, "index": [[*FILE[:3], -1, 0o755]]}}, "manifest.files.index[0][3]"),
        ({"files": {**FILES, "missing": [["inductor"]]}}, "manifest.files.missing[0]"),
        ({"files": {**FILES, "missing": [["inductor", 1]]}}, "manifest.files.missing[0][1]"),
        ({"chunks": [CHUNK[:4]]}, "manifest.chunks[0]"),
        ({"chunks": [[*CHUNK[:1], "sha256:short", *CHUNK[2:]]]}, "manifest.chunks[0][1]"),
        ({"chunks": [CHUNK, [*CHUNK[:2], MAX_CHUNK_SIZE + 1, *CHUNK[3:]]]}, "manifest.chunks[1][2]"),
        ({"chunks": [[*CHUNK[:3], True, "zstd"]]}, "manifest.chunks[0][3]"),
        ({"chunks": [[*CHUNK[:4], b"zstd"]]}, "manifest.chunks[0][4]"),
    ],
)
def test_wrong_value_is_named_by_its_place(change: dict[str, object], path: str) -> None:
    """A value of the wrong type or out of bounds is a `FormatError` that says where it stands."""
    with pytest.raises(FormatError) as caught:
        read(**change)
    assert caught.value.path == path
    assert str(caught.value).count(path) == 1


def test_rows_are_read_in_their_order() -> None:
    """The columns of artifacts and chunks are not taken for one another."""
    found = read(artifacts=[["kind", "key", f"sha256:{'1' * 64}", 3]], chunks=[["p", f"sha256:{'2' * 64}", 4, 5, "c"]])
    assert found.artifacts == (ArtifactRef(kind="kind", key="key", digest=Digest("1" * 64), size=3),)
    files = read(
        files={
            "guard": {"a": "b"},
            "probes": ["p"],
            "index": [["r", "f", f"sha256:{'3' * 64}", 6, 0o644]],
            "missing": [["r", "g"]],
        }
    ).files
    assert files.missing == (("r", "g"),)
    assert (files.guard, files.probes) == ({"a": "b"}, ("p",))
    assert files.index == (FileRef(root="r", path="f", digest=Digest("3" * 64), size=6, mode=0o644),)
    assert found.chunks == (ChunkRef(part="p", digest=Digest("2" * 64), stored_size=4, raw_size=5, codec="c"),)


def test_guards_are_read() -> None:
    """A manifest tells of each artifact that there is no guard, or which, or that nobody knows, as older ones do."""
    guards = (None, "", f"sha256:{'1' * 64}")
    artifacts = tuple(replace(MANIFEST.artifacts[0], key=f"k{n}", guard=guard) for n, guard in enumerate(guards))
    found = unseal(seal(replace(MANIFEST, artifacts=artifacts))).artifacts
    assert (found, tuple(one.guard for one in found)) == (artifacts, guards)
    (old,) = read(format=[1, 2], artifacts=[ARTIFACT]).artifacts
    assert old.guard is None


def test_earlier_readers_are_not_told_of_a_fact_that_they_would_compare() -> None:
    """What the compiler used is written beside the guard, where minor versions before 4 do not look for facts."""
    files = FilesPart(guard={"libc": "glibc 2.36", "cpu_target": "avx avx2"})
    sealed = seal(replace(MANIFEST, files=files))
    written = msgpack.unpackb(msgpack.unpackb(sealed)["payload"])["files"]
    assert (written["guard"], written["cpu_target"]) == ({"libc": "glibc 2.36"}, "avx avx2")
    assert unseal(sealed).files == files
    del written["cpu_target"]
    assert read(format=[1, 3], files=written).files.guard == {"libc": "glibc 2.36"}


def test_manifest_without_files_is_read() -> None:
    """The first minor version has no part for compiled files, and the second does not tell what is missing."""
    assert read(format=[1, 0]).files == FilesPart()
    assert read(format=[1, 1], files=FILES).files == FilesPart()


def test_other_payload_is_refused() -> None:
    """An envelope of something else is refused, whatever is in it."""
    with pytest.raises(FormatError, match=re.escape(PAYLOAD_TYPE)) as caught:
        unseal(enveloped(pack(DOCUMENT), "application/json"))
    assert caught.value.path == "envelope.payloadType"


def test_truncated_manifest_is_refused() -> None:
    """A manifest that ends at any earlier byte is a `FormatError`."""
    sealed = seal(MANIFEST)
    for size in range(len(sealed)):
        with pytest.raises(FormatError):
            unseal(sealed[:size])


def test_flipped_bit_raises_nothing_else() -> None:
    """One wrong bit anywhere gives another manifest or an error of megacache's, never another exception."""
    sealed = seal(MANIFEST)
    refused = 0
    for bit in range(len(sealed) * 8):
        damaged = bytearray(sealed)
        damaged[bit // 8] ^= 1 << bit % 8
        try:
            unseal(bytes(damaged))
        except BundleError:
            refused += 1
    assert refused > len(sealed)


@settings(UNHURRIED, max_examples=300)
@given(st.binary(max_size=100))
def test_any_other_bytes_raise_a_format_error(data: bytes) -> None:
    """Arbitrary bytes are a `FormatError`, inside the envelope and outside."""
    with pytest.raises(FormatError):
        unseal(data)
    with pytest.raises(FormatError):
        unseal(enveloped(data))
