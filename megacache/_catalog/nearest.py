"""The bundles of one environment in several places: each object is read from the nearest that holds its bundle."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

from megacache._bundle import Environment, EnvironmentPrefix, Manifest, environment_prefix
from megacache._catalog.catalog import Catalog
from megacache._catalog.delivery import Value
from megacache._catalog.listing import Listing
from megacache._catalog.places import Places
from megacache._runtime import unordered
from megacache._store import Store
from megacache._trust import TrustPolicy
from megacache.errors import MegacacheError, MissingError

_UNLISTED: Mapping[int, Listing] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Merged(Listing):
    """What the listings of several places tell together."""

    at: Mapping[int, Listing]
    """Those that answered, by the number of the place."""


class NearestCatalog(Catalog):
    """The bundles for one environment, wherever they lie."""

    def __init__(
        self,
        places: Places,
        prefix: EnvironmentPrefix,
        policy: TrustPolicy | None = None,
        at: Mapping[int, Listing] = _UNLISTED,
        *,
        wider: EnvironmentPrefix | None = None,
    ) -> None:
        elsewhere = {bundle: where for listing in at.values() for bundle, where in listing.elsewhere.items()}
        super().__init__(places.store, prefix, policy, wider=wider, elsewhere=elsewhere)
        self.places = places
        self.at = at
        """What each place has listed, by its number."""

    def list(self) -> Listing:
        """List all places at once; raise the fault of the last one if it is silent and the others hold nothing."""
        asked = [number for number, place in enumerate(self.places) if place.usable]
        at = {}
        for done in unordered(self._list_one, asked, deadline=self._store.deadline, doing="listing the places"):
            if done.value is None:
                self.places[done.item].fault = done.fault
            else:
                at[done.item] = done.value
        merged = _merged(at, len(self.places))
        fault = self.places[-1].fault
        if fault is not None and not merged.visible:
            raise fault
        return merged

    def knowing(self, listing: Listing) -> Self:
        """Give the same catalog, which knows from a listing where bundles lie; a plain one is of the last place."""
        at = listing.at if isinstance(listing, _Merged) else {len(self.places) - 1: listing}
        return type(self)(self.places, self.prefix, self._policy, at, wider=self._wider)

    def read_one(self, bundle: str, size: int) -> Manifest:
        """Read one manifest from the nearest place where it is as it should be; its size is told by each listing."""
        del size
        return self._nearest(bundle, self.place(bundle).manifest(bundle), lambda number: self._read(number, bundle)[0])

    def read_sealed(self, bundle: str, size: int) -> bytes:
        """Read one manifest in its envelope in the same way."""
        del size
        return self._nearest(bundle, self.place(bundle).manifest(bundle), lambda number: self._read(number, bundle)[1])

    def outlived(self, number: int) -> frozenset[str]:
        """Name the copies in a place that no place behind it lists any more; empty as long as one of them is silent.

        A last place that holds nothing at all for this environment may be a folder whose mount is gone: it says nothing
        for good.
        """
        behind = range(number + 1, len(self.places))
        if not all(other in self.at for other in behind) or self.at[len(self.places) - 1].is_empty:
            return frozenset()
        own = self.at[number]
        return (own.copied & own.visible.keys()).difference(*(self.at[other].visible for other in behind))

    def holds(self, number: int, bundle: str) -> bool:
        """Tell whether a place has listed a manifest that readers may use."""
        listing = self.at.get(number)
        return listing is not None and (bundle in listing.visible or bundle in listing.quarantined)

    def read_behind(self, number: int, bundle: str) -> bytes:
        """Read one manifest in its envelope from a place behind another one."""
        key = self.place(bundle).manifest(bundle)
        return self._nearest(bundle, key, lambda other: self._read(other, bundle)[1], behind=number)

    def ask_behind(self, number: int, bundle: str, key: str, do: Callable[[Store], Value]) -> Value:
        """Do something with the nearest place behind another one that holds a bundle."""
        return self._nearest(bundle, key, lambda other: do(self.places[other].for_large()), behind=number)

    def _ask(self, bundle: str, key: str, do: Callable[[Store], Value]) -> Value:
        return self._nearest(bundle, key, lambda number: do(self.places[number].for_large()))

    def _nearest(self, bundle: str, key: str, do: Callable[[int], Value], *, behind: int = -1) -> Value:
        """Do something with the nearest place that holds a bundle, or else with the next."""
        fault: MegacacheError = MissingError(f"{key} is in no place")
        for number in (number for number in self._holders(bundle) if number > behind):
            try:
                return do(number)
            except MegacacheError as error:
                fault = error
                self.places[number].blame(key, error)
        raise fault

    def _holders(self, bundle: str) -> Iterator[int]:
        return (number for number in sorted(self.at) if not bundle or self.holds(number, bundle))

    def _read(self, number: int, bundle: str) -> tuple[Manifest, bytes]:
        listing = self.at[number]
        size = listing.visible.get(bundle, listing.quarantined.get(bundle, 0))
        store = self.places[number].for_small()
        catalog = Catalog(store, self.prefix, self._policy, wider=self._wider).knowing(listing)
        return catalog.read_both(bundle, size)

    def _list_one(self, number: int) -> Listing:
        return Catalog(self.places[number].for_listing(), self.prefix, wider=self._wider).list()


def catalog_of(places: Places, environment: Environment, policy: TrustPolicy | None = None) -> Catalog:
    """Make the catalog of an environment in one place or several."""
    if len(places) == 1:
        return Catalog.of(places.store, environment, policy)
    own, *wider = (environment_prefix(one.device, one.fingerprint) for one in environment.readable)
    return NearestCatalog(places, own, policy, wider=next(iter(wider), None))


def _merged(at: Mapping[int, Listing], count: int) -> _Merged:
    """Put listings together.

    A copy counts as long as a place behind it lists the bundle, or as long as one of them is silent: what was deleted
    there is not to come back from a copy.
    """
    counted: set[str] = set()
    withdrawn: set[str] = set()
    silent = False
    for number in reversed(range(count)):
        listing = at.get(number)
        if listing is None:
            silent = True
            continue
        counted |= listing.visible.keys() if silent else listing.visible.keys() - listing.copied
        # A copy that was left behind says nothing of what it was copied from, unless somebody has quarantined it.
        withdrawn |= listing.withdrawn - (listing.copied - listing.quarantined.keys())
    sizes = {bundle: size for one in at.values() for bundle, size in one.visible.items()}
    stale = sizes.keys() - counted
    last = at.get(count - 1)
    return _Merged(
        visible={bundle: sizes[bundle] for bundle in sorted(counted - withdrawn)},
        withdrawn=frozenset(withdrawn | stale),
        copied=frozenset(),
        quarantined={bundle: size for one in at.values() for bundle, size in one.quarantined.items()},
        signatures={found: size for one in at.values() for found, size in one.signatures.items()},
        leases=last.leases if last is not None else (),
        elsewhere={bundle: where for one in at.values() for bundle, where in one.elsewhere.items()},
        at=at,
    )
