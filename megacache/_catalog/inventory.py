"""What a whole cache holds, for all environments, by one LIST."""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace

from megacache._bundle import (
    Digest,
    Environment,
    EnvironmentPrefix,
    LeaseName,
    Manifest,
    Placed,
    environment_prefix,
    is_withdrawn,
    place,
)
from megacache._catalog.catalog import Catalog
from megacache._runtime import Done, counted, unordered
from megacache._store import Entry, Store
from megacache._trust import TrustPolicy
from megacache.errors import BundleError, MissingError, StoreError

_ENVIRONMENTS_COMPARED = 4
# A manifest that is damaged or untrusted must not hide its environment.
_MANIFESTS_TRIED = 8
_DEPTH = 4
"""Folders and name of an object within its cache."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Holding:
    """What a store holds for one environment."""

    prefix: EnvironmentPrefix
    manifests: Mapping[str, int] = field(default_factory=dict)
    """Bytes of each bundle's manifest, by bundle id."""
    marks: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Marks of bundles, by bundle id, of bundles that are gone as well."""
    signatures: Mapping[tuple[str, str], int] = field(default_factory=dict)
    """Bytes of each signature that was added later, by bundle id and tag of the signature."""
    chunks: Mapping[Digest, int] = field(default_factory=dict)
    """Bytes of each chunk as stored."""
    leases: tuple[LeaseName, ...] = ()
    """Beats of leases, which nobody may hold any more."""
    modified: Mapping[str, float] = field(default_factory=dict)
    """When objects were written, by key, as far as the store tells it."""

    @property
    def visible(self) -> Mapping[str, int]:
        """Those of `manifests` that no mark hides from readers."""
        return {
            bundle: size
            for bundle, size in self.manifests.items()
            if not is_withdrawn(self.marks.get(bundle, frozenset()))
        }

    def lacking(self, manifest: Manifest) -> MissingError | None:
        """Give the fault of a bundle that lacks chunks; None if all are there."""
        gone = {chunk.digest for chunk in manifest.chunks} - self.chunks.keys()
        return MissingError(f"it lacks {counted(len(gone), 'chunk')}") if gone else None

    @property
    def size(self) -> int:
        """Bytes of all its manifests and chunks."""
        return sum(self.manifests.values()) + sum(self.chunks.values())


@dataclass(frozen=True, slots=True, kw_only=True)
class Inventory:
    """What a whole cache holds."""

    holdings: tuple[Holding, ...]
    """One for each environment, by prefix."""
    strangers: tuple[str, ...]
    """Keys that megacache does not write."""

    @property
    def nested(self) -> tuple[str, ...]:
        """Folders among the strangers that are caches themselves, by their path."""
        parts = [key.split("/") for key in self.strangers]
        return tuple(sorted({"/".join(p[:-_DEPTH]) for p in parts if place("/".join(p[-_DEPTH:])) is not None}))

    @classmethod
    def of(cls, store: Store) -> "Inventory":
        """List a cache."""
        return cls.sorted(store.list())

    @classmethod
    def sorted(cls, entries: Iterable[Entry]) -> "Inventory":
        """Sort the objects of a listing by what their keys say."""
        found: dict[EnvironmentPrefix, list[tuple[Placed, Entry]]] = defaultdict(list)
        strangers = []
        for entry in entries:
            placed = place(entry.key)
            if placed is None:
                strangers.append(entry.key)
            else:
                found[placed.prefix].append((placed, entry))
        holdings = [_holding(prefix, found[prefix]) for prefix in sorted(found, key=lambda one: one.path)]
        return cls(holdings=tuple(holdings), strangers=tuple(sorted(strangers)))


def holding_of(store: Store, prefix: EnvironmentPrefix, *, chunks: bool = True) -> Holding:
    """List what a store holds for one environment, or all but its chunks."""
    folder = prefix.path if chunks else prefix.bundles
    entries = (replace(entry, key=f"{folder}/{entry.key}") for entry in store.list(folder))
    return next(iter(Inventory.sorted(entries).holdings), Holding(prefix=prefix))


def _holding(prefix: EnvironmentPrefix, objects: Sequence[tuple[Placed, Entry]]) -> Holding:
    manifests: dict[str, int] = {}
    chunks: dict[Digest, int] = {}
    marks: dict[str, frozenset[str]] = {}
    signatures: dict[tuple[str, str], int] = {}
    leases = []
    for placed, entry in objects:
        if placed.mark is not None:
            bundle, mark = placed.mark
            marks[bundle] = marks.get(bundle, frozenset()) | {mark}
        elif placed.signature is not None:
            signatures[placed.signature] = entry.size
        elif placed.chunk is not None:
            chunks[placed.chunk] = entry.size
        elif placed.lease is not None:
            leases.append(placed.lease)
        else:
            manifests[placed.manifest] = entry.size
    return Holding(
        prefix=prefix,
        manifests=manifests,
        marks=marks,
        signatures=signatures,
        chunks=chunks,
        leases=tuple(sorted(leases)),
        modified={entry.key: entry.modified for _, entry in objects if entry.modified is not None},
    )


def given(manifests: Iterable[Done[str, Manifest]]) -> Iterator[Done[str, Manifest]]:
    """Pass manifests on, without those that were removed since they were listed.

    Raises `StoreError` where the store would not give one that is there: what is decided, or counted, without it would
    be wrong.
    """
    for done in manifests:
        if isinstance(done.fault, MissingError):
            continue
        if isinstance(done.fault, StoreError):
            raise done.fault
        yield done


def nearest_other(
    store: Store, environment: Environment, policy: TrustPolicy | None = None
) -> tuple[Environment | None, int]:
    """Find the published environment with the fewest mismatches, and how many others there are.

    One listing of the whole cache, and one request for each of at most four environments, those of the same device
    first. What one of these has published for any CPU is not another environment.
    """
    own = [environment_prefix(one.device, one.fingerprint) for one in environment.readable]
    others = [one for one in Inventory.of(store).holdings if one.prefix not in own and one.visible]
    # The same device first: a difference in software is what the user can change.
    ranked = sorted(others, key=lambda one: (one.prefix.device != own[0].device, one.prefix.path))
    found = tuple(_environments(store, ranked[:_ENVIRONMENTS_COMPARED], policy))
    wider = {environment_prefix(part.device, part.fingerprint) for one in found for part in one.readable[1:]}
    count = sum(one.prefix not in wider for one in others)
    return min(found, key=lambda other: len(environment.mismatches(other)), default=None), count


def _environments(store: Store, holdings: Sequence[Holding], policy: TrustPolicy | None) -> Iterator[Environment]:
    """Read the environment of each holding; leave out a holding without a readable manifest."""

    def read(holding: Holding) -> Environment | None:
        catalog = Catalog(store, holding.prefix, policy, holding.signatures)
        for bundle, size in sorted(holding.manifests.items())[:_MANIFESTS_TRIED]:
            with suppress(BundleError):
                found = catalog.read_one(bundle, size).environment
                if environment_prefix(found.device, found.fingerprint) == holding.prefix:
                    return found
        return None

    for done in unordered(read, holdings, deadline=store.deadline, doing="looking at environments"):
        if done.value is not None:
            yield done.value
