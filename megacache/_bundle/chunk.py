"""Content to and from chunks: compressed, and named by the digest of what is stored."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TypeVar

import zstandard

from megacache._bundle.digest import Digest
from megacache._bundle.manifest import ChunkRef
from megacache.errors import FormatError, IntegrityError

CODEC = "zstd"
"""The only codec of this format version."""

# On real artifacts, level 10 saves a fifth to almost a half, and takes five to eight times as long.
_LEVEL = 3
# Graphs repeat one another's tables, megabytes apart: repeats are found over a whole chunk.
_WINDOW_LOG = 27

CHUNK_SIZE = 32 << 20
"""Bytes of raw content a chunk holds at most, unless a single item is larger."""

Name = tuple[str, str, str, Digest]
"""Part; kind or root; key or path; digest of the content."""
_Item = TypeVar("_Item")


def compress(raw: bytes, *, other_name: bool = False) -> bytes:
    """Compress into one zstd frame that states its size; raise `MemoryError` where that needs more than there is.

    For `other_name` the frame ends in a checksum, so that its digest is another one.
    """
    parameters = zstandard.ZstdCompressionParameters.from_level(
        _LEVEL, window_log=_WINDOW_LOG, write_checksum=other_name
    )
    try:
        return zstandard.ZstdCompressor(compression_params=parameters).compress(raw)
    except zstandard.ZstdError as error:  # with these parameters nothing else can go wrong
        raise MemoryError(str(error)) from error


def decompress(stored: bytes, *, raw_size: int) -> bytes:
    """Decompress one frame of exactly `raw_size` bytes."""
    try:
        # A frame that announces more than the manifest allocates nothing: `max_output_size` does not count if the frame
        # states its size.
        declared = zstandard.frame_content_size(stored)
        if declared != raw_size:
            raise IntegrityError("size of the chunk", expected=raw_size, actual=declared)
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
        return decompressor.decompress(stored, max_output_size=raw_size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        msg = f"not a zstd frame: {error}"
        raise FormatError(msg) from error


@dataclass(frozen=True, slots=True, kw_only=True)
class Payload:
    """What will become one chunk."""

    part: str
    """As in `ChunkRef`."""
    weight: int
    """Bytes that `build` will give, nearly."""
    build: Callable[[], bytes] = field(repr=False)
    """Serialises the content, as late as possible."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """A chunk on its way to a store."""

    ref: ChunkRef
    stored: bytes = field(repr=False)


def pack_chunk(payload: Payload, *, other_name: bool = False) -> Chunk:
    """Serialise and compress; what is packed has two names, each a digest of what is stored."""
    raw = payload.build()
    stored = compress(raw, other_name=other_name)
    ref = ChunkRef(part=payload.part, digest=Digest.of(stored), stored_size=len(stored), raw_size=len(raw), codec=CODEC)
    return Chunk(ref=ref, stored=stored)


def check_stored(ref: ChunkRef, stored: bytes) -> None:
    """Raise `IntegrityError` if this is not what was published, or has another size than is declared."""
    actual = Digest.of(stored)
    if actual != ref.digest:
        raise IntegrityError(f"chunk {ref.digest.hex[:12]}", expected=ref.digest, actual=actual)
    if len(stored) != ref.stored_size:
        what = f"size of chunk {ref.digest.hex[:12]}"
        raise IntegrityError(what, expected=ref.stored_size, actual=len(stored))


def open_chunk(ref: ChunkRef, stored: bytes) -> bytes:
    """Give the raw content, once the digest and both sizes are proved.

    Raises `IntegrityError` or `FormatError`.
    """
    # The digest comes first: nothing is decompressed but what was published.
    check_stored(ref, stored)
    if ref.codec != CODEC:
        msg = f"chunk {ref.digest.hex[:12]} has codec {ref.codec!r}, not {CODEC}"
        raise FormatError(msg, hint="upgrade megacache")
    return decompress(stored, raw_size=ref.raw_size)


def grouped(items: Iterable[_Item], weigh: Callable[[_Item], int]) -> Iterator[tuple[_Item, ...]]:
    """Split items into chunks' worth, in the order given."""
    members: list[_Item] = []
    size = 0
    for item in items:
        weight = weigh(item)
        if members and size + weight > CHUNK_SIZE:
            yield tuple(members)
            members, size = [], 0
        members.append(item)
        size += weight
    if members:
        yield tuple(members)
