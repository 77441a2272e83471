"""Write zstd frames by hand, so that no version of a compressor changes them, and so that they can lie.

The layout is that of RFC 8878: blocks are stored or repeat one byte.
"""

_MAGIC = bytes.fromhex("28b52ffd")
_WITH_SIZE = b"\x80\x88"
"""Header of a frame that states its size in four bytes, and wants a window of 128 MiB."""
_WITHOUT_SIZE = b"\x00\x88"
_MAX_BLOCK = 128 << 10
_STORED, _REPEATED = 0, 1


def frame(raw: bytes, *, size: int | None = None) -> bytes:
    """Write a frame that states its size, or another one."""
    pieces = [raw[at : at + _MAX_BLOCK] for at in range(0, len(raw), _MAX_BLOCK)] or [b""]
    blocks = [(_STORED, len(piece), piece) for piece in pieces]
    stated = len(raw) if size is None else size
    return _MAGIC + _WITH_SIZE + stated.to_bytes(4, "little") + _blocks(blocks)


def frame_without_size(raw: bytes) -> bytes:
    """Write a frame that does not say how much is in it."""
    return _MAGIC + _WITHOUT_SIZE + _blocks([(_STORED, len(raw), raw)])


def bomb(size: int, *, blocks: int) -> bytes:
    """Write a frame that states a small size, and is as many times 128 KiB of zeros."""
    return _MAGIC + _WITH_SIZE + size.to_bytes(4, "little") + _blocks([(_REPEATED, _MAX_BLOCK, b"\0")] * blocks)


def _blocks(blocks: list[tuple[int, int, bytes]]) -> bytes:
    written = b""
    for number, (kind, size, content) in enumerate(blocks):
        last = number == len(blocks) - 1
        written += (size << 3 | kind << 1 | last).to_bytes(3, "little") + content
    return written
