"""Limits on what one call reads from a store, however much somebody has put there."""

from collections.abc import Iterable, Mapping

from megacache._bundle import ChunkRef
from megacache._catalog.delivery import Order

MAX_BUNDLES = 10_000
"""Manifests that one call reads."""
MAX_MANIFEST_BYTES = 128 << 20
"""Bytes of all of them together; in memory they take five times as much."""
WARM_MAX_BYTES = 16 << 30
"""Bytes of content that a warm start loads, unless its caller says otherwise: all of it comes to lie on disk."""
TOO_MANY = f"at most {MAX_BUNDLES:,} manifests, of {MAX_MANIFEST_BYTES >> 20} MiB together, are read, small ones first"


def affordable_manifests(sizes: Mapping[str, int]) -> Mapping[str, int]:
    """Choose the manifests to be read, given their sizes by bundle id: the small ones, if there are too many."""
    # The small ones first: one that is huge must not keep others from being read.
    chosen, left = {}, MAX_MANIFEST_BYTES
    for bundle in sorted(sizes, key=lambda bundle: (sizes[bundle], bundle))[:MAX_BUNDLES]:
        left -= sizes[bundle]
        if left < 0:
            break
        chosen[bundle] = sizes[bundle]
    return chosen


def affordable(orders: Iterable[Order], most: int) -> frozenset[str]:
    """Choose bundles that fit into so many bytes together, each whole, the newest first; give their ids."""
    chosen: set[str] = set()
    for order in sorted(orders, key=lambda one: (one.manifest.created, one.manifest.bundle), reverse=True):
        size = weight(order.chunks)
        if size <= most:
            chosen.add(order.manifest.bundle)
            most -= size
    return frozenset(chosen)


def weight(chunks: Iterable[ChunkRef]) -> int:
    """Count the bytes of chunks before compression, or as stored where somebody made that more."""
    return sum(max(chunk.raw_size, chunk.stored_size) for chunk in chunks)
