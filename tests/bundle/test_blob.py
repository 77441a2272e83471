"""PyTorch's portable blob is read completely, written as PyTorch reads it, and distrusted."""

import zlib
from collections.abc import Callable, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.compiler._cache import CacheArtifactManager
from torch.utils._appending_byte_serializer import BytesWriter

from megacache._bundle import Artifact, build_blob, parse_blob
from megacache.errors import FormatError, IntegrityError
from tests.kit.builders import UNHURRIED, any_artifact, any_text, artifact, plain

TORCH_KINDS = ("aot_autograd", "autotune", "inductor", "pgo")
BLOB = build_blob([artifact("k1", b"one"), artifact("k2", b""), artifact("k1", b"two", kind="pgo")])
EMPTY_SIZE = len(build_blob([]))

torch_artifacts = st.lists(
    st.builds(Artifact, kind=st.sampled_from(TORCH_KINDS), key=any_text, content=st.binary(max_size=50)), max_size=8
)


def framed(payload: bytes, version: int = 1) -> bytes:
    """Put a payload into a frame whose version and checksum are right."""
    rest = version.to_bytes(8, "big") + payload
    return zlib.crc32(rest).to_bytes(4, "big") + rest


def written(*groups: tuple[str, Sequence[Artifact]]) -> bytes:
    """Write groups by PyTorch's own writer, in the order given."""
    writer = BytesWriter()
    writer.write_uint64(1)
    for kind, members in groups:
        writer.write_str(kind)
        writer.write_uint64(len(members))
        for member in members:
            writer.write_str(member.key)
            writer.write_bytes(bytes(member.content))
    return writer.to_bytes()


def saved() -> bytes:
    """Save what PyTorch has recorded."""
    found = CacheArtifactManager.serialize()
    assert found is not None
    return found[0]


@UNHURRIED
@given(st.lists(any_artifact, max_size=8))
def test_what_is_built_is_parsed(artifacts: list[Artifact]) -> None:
    """Parsing gives back the artifacts that were built in, whatever their kinds, keys and contents are."""
    assert sorted(map(plain, parse_blob(build_blob(artifacts)))) == sorted(map(plain, artifacts))


@UNHURRIED
@given(torch_artifacts)
def test_torch_reads_all_that_is_built(artifacts: list[Artifact]) -> None:
    """PyTorch's own reader finds every artifact of a blob that megacache wrote."""
    found = CacheArtifactManager.deserialize(build_blob(artifacts))
    assert found is not None
    read = [(kind, one.key, one.content) for kind, members in found.items() for one in members]
    assert sorted(read) == sorted(map(plain, artifacts))


@UNHURRIED
@given(st.lists(st.tuples(st.sampled_from(TORCH_KINDS), st.lists(any_artifact, max_size=3)), max_size=5))
def test_all_groups_of_a_kind_are_parsed(groups: list[tuple[str, list[Artifact]]]) -> None:
    """Several groups of one kind, as repeated saves leave them, are all parsed."""
    expected = [(kind, one.key, bytes(one.content)) for kind, members in groups for one in members]
    assert list(map(plain, parse_blob(written(*groups)))) == expected


def test_blob_of_two_saves_is_parsed_completely_where_torch_loses_the_first() -> None:
    """After two saves, PyTorch's own reader knows the second only; megacache reads both and writes them anew."""
    with CacheArtifactManager.with_fresh_cache():
        CacheArtifactManager.record_artifact("inductor", "first", b"1")
        CacheArtifactManager.record_artifact("pgo", "only", b"0")
        saved()
        CacheArtifactManager.record_artifact("inductor", "second", b"2")
        blob = saved()

    lossy = CacheArtifactManager.deserialize(blob)
    assert lossy is not None
    assert [one.key for one in lossy["inductor"]] == ["second"]

    parsed = list(parse_blob(blob))
    assert sorted(one.key for one in parsed) == ["first", "only", "second"]
    whole = CacheArtifactManager.deserialize(build_blob(parsed))
    assert whole is not None
    assert [one.key for one in whole["inductor"]] == ["first", "second"]


def test_empty_blob_has_no_artifacts() -> None:
    """A blob without groups is right, for PyTorch as well."""
    assert list(parse_blob(build_blob([]))) == []
    assert CacheArtifactManager.deserialize(build_blob([])) == {}


def test_contents_are_views() -> None:
    """A large content is not copied when it is parsed."""
    (found,) = parse_blob(build_blob([artifact(content=b"x" * 100)]))
    assert isinstance(found.content, memoryview)


@pytest.mark.parametrize("size", range(len(BLOB)))
def test_truncated_blob_is_refused(size: int) -> None:
    """A blob that ends at any earlier byte is refused."""
    with pytest.raises(FormatError if size < EMPTY_SIZE else IntegrityError):
        list(parse_blob(BLOB[:size]))


def test_every_flipped_bit_is_found() -> None:
    """One wrong bit anywhere, the checksum included, is an `IntegrityError`."""
    for bit in range(len(BLOB) * 8):
        damaged = bytearray(BLOB)
        damaged[bit // 8] ^= 1 << bit % 8
        with pytest.raises(IntegrityError):
            list(parse_blob(bytes(damaged)))


@settings(UNHURRIED, max_examples=300)
@given(st.binary(max_size=80))
def test_any_payload_is_parsed_or_refused(payload: bytes) -> None:
    """Bytes under a right checksum either are artifacts or raise `FormatError`."""
    try:
        list(parse_blob(framed(payload)))
    except FormatError:
        return


def test_wrong_bytes_under_a_right_checksum_raise_nothing_else() -> None:
    """Each byte replaced, and the checksum made anew: what lies is a `FormatError`, never another exception."""
    payload = BLOB[EMPTY_SIZE:]
    refused = 0
    for at in range(len(payload)):
        for value in (0x00, 0x7F, 0xFF):
            try:
                list(parse_blob(framed(payload[:at] + bytes([value]) + payload[at + 1 :])))
            except FormatError:
                refused += 1
    assert refused > len(payload)


@pytest.mark.parametrize(
    ("payload", "says"),
    [
        (b"\0" * 7, "announced at byte 0"),
        (b"\xff" * 8, "announced at byte 8"),
        (written(("pgo", []))[EMPTY_SIZE:][:-8] + b"\xff" * 8, "announced"),
        (b"\0" * 7 + b"\4" + b"a?==" + b"\0" * 8, "base64"),
        (b"\0" * 7 + b"\4" + b"/w==" + b"\0" * 8, "base64"),
    ],
    ids=["half a length", "length beyond the end", "count beyond the end", "no base64", "no UTF-8"],
)
def test_lie_in_a_blob_is_a_format_error(payload: bytes, says: str) -> None:
    """A length, a count or a text that lies is refused at the place where it stands."""
    with pytest.raises(FormatError, match=says):
        list(parse_blob(framed(payload)))


def test_frame_is_checked_before_the_first_artifact() -> None:
    """Nothing of a damaged blob is seen, not even what precedes the damage."""
    seen: Callable[[], Artifact] = parse_blob(BLOB[:-1] + b"?").__next__
    with pytest.raises(IntegrityError):
        seen()


def test_other_version_is_refused() -> None:
    """A blob of another version is a `FormatError` that says which."""
    with pytest.raises(FormatError, match="version 2, not 1"):
        list(parse_blob(framed(b"", version=2)))
