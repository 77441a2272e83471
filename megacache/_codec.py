"""Compress chunks with zstd, and decompress them into no more than they declare."""

import zstandard

from megacache.errors import FormatError, IntegrityError

CODEC = "zstd"
"""The only codec of this format version."""

_LEVEL = 3
_WINDOW_LOG = 27
"""Repeats are found over a whole chunk: graphs repeat one another's tables, megabytes apart."""


def compress(raw: bytes) -> bytes:
    """Compress into one zstd frame that states its size."""
    parameters = zstandard.ZstdCompressionParameters.from_level(_LEVEL, window_log=_WINDOW_LOG)
    return zstandard.ZstdCompressor(compression_params=parameters).compress(raw)


def decompress(stored: bytes, *, raw_size: int) -> bytes:
    """Decompress one frame of exactly `raw_size` bytes.

    The frame's own header is compared first, so that a frame that would grow beyond what was declared allocates
    nothing.
    """
    try:
        declared = zstandard.frame_content_size(stored)
        if declared != raw_size:
            raise IntegrityError("size of the chunk", expected=raw_size, actual=declared)
        decompressor = zstandard.ZstdDecompressor(max_window_size=1 << _WINDOW_LOG)
        return decompressor.decompress(stored, max_output_size=raw_size, allow_extra_data=False)
    except zstandard.ZstdError as error:
        msg = f"not a zstd frame: {error}"
        raise FormatError(msg) from error
