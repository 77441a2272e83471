"""Copy what was read from a farther place to the nearer ones, so that the next process finds it there.

A copy is written in the order of a publication, and marked as one before its manifest is there: it may be cut short at
any time. It has the signatures of the last place, as they are.
"""

import logging
from collections.abc import Iterable, Iterator, Sequence

from megacache._bundle import (
    COPIED,
    MAX_SIGNATURE_SIZE,
    SUPERSEDED,
    ChunkRef,
    EnvironmentPrefix,
    Manifest,
    check_stored,
)
from megacache._catalog.catalog import Catalog
from megacache._catalog.delivery import fetch_chunk
from megacache._catalog.listing import Listing
from megacache._catalog.nearest import NearestCatalog
from megacache._catalog.node_cache import NodeCache
from megacache._catalog.places import Place
from megacache._runtime import Deadline
from megacache._store import Store
from megacache.errors import MegacacheError

_log = logging.getLogger("megacache")
_SECONDS = 300.0


def fill(catalog: NearestCatalog, bundles: Sequence[Manifest], node: NodeCache | None = None) -> None:
    """Complete the nearer places; one that fails is left as it is until the next time."""
    catalog.places.restart(Deadline.after(_SECONDS))
    for number, place in enumerate(catalog.places):
        if place.last or not place.usable or number not in catalog.at:
            continue
        filling = _Filling(catalog, number, node)
        try:
            filling.run(bundles)
        except MegacacheError as error:
            _log.info("not copied: place=%s error=%s", place.url, error)


class _Filling:
    """Fills one place."""

    def __init__(self, catalog: NearestCatalog, number: int, node: NodeCache | None) -> None:
        self._catalog = catalog
        self._number = number
        self._place: Place = catalog.places[number]
        self._listing: Listing = catalog.at[number]
        self._node = node

    def run(self, bundles: Sequence[Manifest]) -> None:
        """Copy the bundles that the place lacks, and what is damaged or missing of those that it holds."""
        self._mark(one.bundle for one in bundles)
        wanted = [one for one in bundles if self._is_wanted(one)]
        if not wanted:
            return
        there = self._chunks({self._catalog.place(one.bundle) for one in wanted})
        for one in wanted:
            for ref in one.chunks:
                self._copy_chunk(one.bundle, ref, there)
            self._copy_manifest(one.bundle)

    def _mark(self, bundles: Iterable[str]) -> None:
        """Leave what has been deleted behind to `megacache gc`, and take back what is there again."""
        for bundle in self._catalog.outlived(self._number):
            self._target(bundle).mark(bundle, SUPERSEDED)
        left = self._listing.copied & self._listing.withdrawn - self._listing.quarantined.keys()
        for bundle in left.intersection(bundles):
            self._target(bundle).unmark(bundle, SUPERSEDED)

    def _is_wanted(self, manifest: Manifest) -> bool:
        bundle, damaged = manifest.bundle, self._place.damaged
        behind = range(self._number + 1, len(self._catalog.places))
        if bundle in self._listing.withdrawn or not any(self._catalog.holds(other, bundle) for other in behind):
            return False
        prefix = self._catalog.place(bundle)
        keys = {prefix.manifest(bundle), *(prefix.chunk(ref.digest) for ref in manifest.chunks)}
        return bundle not in self._listing.visible or bool(keys & damaged)

    def _chunks(self, prefixes: Iterable[EnvironmentPrefix]) -> dict[str, int]:
        folders, store = [f"{prefix.path}/chunks" for prefix in prefixes], self._place.for_large()
        return {f"{folder}/{entry.key}": entry.size for folder in folders for entry in store.list(folder)}

    def _target(self, bundle: str) -> Catalog:
        return Catalog(self._place.for_large(), self._catalog.place(bundle))

    def _copy_chunk(self, bundle: str, ref: ChunkRef, there: dict[str, int]) -> None:
        key = self._catalog.place(bundle).chunk(ref.digest)
        damaged = key in self._place.damaged or there.get(key, ref.stored_size) != ref.stored_size
        if key in there and not damaged:
            return
        if damaged:
            self._place.for_small().delete(key)

        def prove(stored: bytes) -> bytes:
            check_stored(ref, stored)
            return stored

        fetched = self._catalog.ask_behind(
            self._number, bundle, key, lambda store: fetch_chunk(store, key, ref, prove, self._node)
        )
        fetched.keep()
        self._place.for_large().create(key, fetched.value)
        self._place.damaged.discard(key)
        there[key] = ref.stored_size

    def _copy_manifest(self, bundle: str) -> None:
        key = self._catalog.place(bundle).manifest(bundle)
        damaged = key in self._place.damaged
        if bundle in self._listing.visible and not damaged:
            return
        sealed = self._catalog.read_behind(self._number, bundle)
        target = self._target(bundle)
        for name, signature in self._signatures(bundle):
            self._place.for_small().create(name, signature)
        if damaged:
            self._place.for_small().delete(key)
        else:
            target.mark(bundle, COPIED)
        target.announce_sealed(bundle, sealed)

    def _signatures(self, bundle: str) -> Iterator[tuple[str, bytes]]:
        """Read the signatures that were added later, which the place lacks."""
        for number, listing in self._catalog.at.items():
            for (signed, tag), size in listing.signatures.items():
                if number > self._number and signed == bundle and (signed, tag) not in self._listing.signatures:
                    key = self._catalog.place(bundle).signature(bundle, tag)
                    if size <= MAX_SIGNATURE_SIZE:
                        yield key, self._store(number).read(key, size=size)

    def _store(self, number: int) -> Store:
        return self._catalog.places[number].for_small()
