"""A chunk is compressed into one frame, and decompressed into no more than it declares."""

import tracemalloc

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from megacache._bundle.chunk import compress, decompress
from megacache.errors import BundleError, FormatError, IntegrityError
from tests.kit.builders import UNHURRIED, noise

MIB = 1 << 20
BOMB_SIZE = 256 * MIB


def bomb() -> bytes:
    """Compress many zeros without ever holding them all."""
    compressor = zstandard.ZstdCompressor(level=1).compressobj(size=BOMB_SIZE)
    return b"".join([*(compressor.compress(bytes(MIB)) for _ in range(BOMB_SIZE // MIB)), compressor.flush()])


@UNHURRIED
@given(st.binary(max_size=5000))
def test_what_is_compressed_is_decompressed(raw: bytes) -> None:
    """Decompressing gives the bytes that were compressed, none included."""
    assert decompress(compress(raw), raw_size=len(raw)) == raw


def test_large_chunk_comes_back() -> None:
    """From 8 MiB on, repeats far apart are found; the bytes are the same."""
    half = noise(8 * MIB)
    stored = compress(half + half)
    assert len(stored) < 9 * MIB
    assert decompress(stored, raw_size=16 * MIB) == half + half


def test_frame_states_its_size() -> None:
    """The size stands in the frame, so that it can be compared before anything is allocated."""
    assert zstandard.frame_content_size(compress(b"abc")) == 3
    assert zstandard.frame_content_size(compress(bytes(9 * MIB))) == 9 * MIB


@pytest.mark.parametrize("raw_size", [0, 99, 101, 1 << 40])
def test_other_size_than_declared_is_refused(raw_size: int) -> None:
    """A frame of another size than the manifest declares is an `IntegrityError` with both sizes."""
    with pytest.raises(IntegrityError) as caught:
        decompress(compress(b"x" * 100), raw_size=raw_size)
    assert (caught.value.expected, caught.value.actual) == (raw_size, 100)


def test_frame_without_size_is_refused() -> None:
    """A frame that does not say how large it grows is not opened."""
    frame = zstandard.ZstdCompressor(write_content_size=False).compress(b"x" * 100)
    with pytest.raises(IntegrityError):
        decompress(frame, raw_size=100)


@pytest.mark.parametrize("garbage", [b"\0", b"garbage", compress(b"another frame")], ids=["byte", "text", "frame"])
def test_trailing_bytes_are_refused(garbage: bytes) -> None:
    """Nothing may follow the frame, not even another one."""
    with pytest.raises(FormatError, match="not a zstd frame"):
        decompress(compress(b"x" * 100) + garbage, raw_size=100)


@UNHURRIED
@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_other_bytes_raise_a_bundle_error(data: bytes, raw_size: int) -> None:
    """Bytes that are no frame of that size raise megacache's own errors only."""
    try:
        decompress(data, raw_size=raw_size)
    except BundleError:
        return


def test_truncated_frame_is_refused() -> None:
    """A frame that ends at any earlier byte is refused."""
    frame = compress(noise(300))
    for size in range(len(frame)):
        with pytest.raises(BundleError):
            decompress(frame[:size], raw_size=300)


@pytest.mark.parametrize("lies", [False, True], ids=["large in its header", "small in its header"])
def test_bomb_allocates_nothing(lies: bool) -> None:
    """A small frame that grows to 256 MiB is refused, whatever its header says, without the memory for it."""
    frame = bomb()
    if lies:
        at = frame.index(BOMB_SIZE.to_bytes(4, "little"))
        frame = frame[:at] + (100).to_bytes(4, "little") + frame[at + 4 :]
    tracemalloc.start()
    try:
        with pytest.raises(BundleError):
            decompress(frame, raw_size=100)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MIB
