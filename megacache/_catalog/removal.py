"""Remove bundles for good: what goes is decided first, shown, and then done."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from typing import TypeVar

from megacache._bundle import Digest, EnvironmentPrefix, LeaseName
from megacache._catalog.catalog import Catalog
from megacache._catalog.inventory import Holding, given, holding_of
from megacache._runtime import Progress, ProgressCallback, unordered
from megacache._store import Store

Item = TypeVar("Item")


@dataclass(frozen=True, slots=True, kw_only=True)
class RemovalPlan:
    """What will be removed from one environment."""

    prefix: EnvironmentPrefix
    bundles: tuple[str, ...]
    marks: tuple[tuple[str, str], ...]
    """Bundle and mark."""
    signatures: tuple[tuple[str, str], ...]
    """Bundle and tag of the signature."""
    leases: tuple[LeaseName, ...]
    chunks: tuple[Digest, ...]
    """Those that no other bundle needs."""
    size: int
    """Bytes that this frees."""
    kept: int
    """Chunks that stay, because a manifest of another bundle cannot be read and may name them."""
    known: frozenset[str]
    """Ids of all bundles that were there when this was decided."""

    @property
    def keys(self) -> tuple[str, ...]:
        """Name the objects that will be gone."""
        return tuple(chain.from_iterable(self._steps()))

    def still(self, now: "RemovalPlan") -> "RemovalPlan":
        """Leave out what a newer plan would not remove."""
        return replace(
            self,
            bundles=_common(self.bundles, now.bundles),
            marks=_common(self.marks, now.marks),
            signatures=_common(self.signatures, now.signatures),
            leases=_common(self.leases, now.leases),
            chunks=_common(self.chunks, now.chunks),
            known=now.known,
        )

    def apply(self, store: Store, progress: ProgressCallback) -> "RemovalPlan":
        """Remove the bundles, and give what was removed; what is gone already is not a fault.

        Chunks stay that a bundle names which was announced since this was decided.
        """
        manifests, others, _ = self._steps()
        first = len(manifests) + len(others)
        self._delete(store, manifests, progress, before=0)
        self._delete(store, others, progress, before=len(manifests))
        if not self.chunks:
            return self
        named = self._named_since(store)
        done = replace(self, chunks=tuple(one for one in self.chunks if one not in named))
        done._delete(store, done.keys[first:], progress, before=first)
        return done

    def _named_since(self, store: Store) -> frozenset[Digest]:
        there = holding_of(store, self.prefix, chunks=False).manifests
        new = {bundle: size for bundle, size in there.items() if bundle not in self.known}
        named: set[Digest] = set()
        for read in given(Catalog(store, self.prefix).read(new)):
            # What cannot be read may name any chunk.
            named.update(ref.digest for ref in read.value.chunks) if read.value else named.update(self.chunks)
        return frozenset(named)

    def _delete(self, store: Store, keys: Sequence[str], progress: ProgressCallback, *, before: int) -> None:
        done, total = before, len(self.keys)
        for removed in unordered(store.delete, keys, deadline=store.deadline, doing=f"removing from {store.url}"):
            removed.result()
            done += 1
            progress(Progress(stage="remove", done=done, total=total))

    def _steps(self) -> tuple[list[str], list[str], list[str]]:
        # A bundle exists while its manifest does: manifests go before the marks that hide them, and chunks last.
        return (
            [self.prefix.manifest(bundle) for bundle in self.bundles],
            [
                *(self.prefix.mark(bundle, mark) for bundle, mark in self.marks),
                *(self.prefix.signature(bundle, tag) for bundle, tag in self.signatures),
                *map(self.prefix.lease, self.leases),
            ],
            [self.prefix.chunk(digest) for digest in self.chunks],
        )


def _common(mine: tuple[Item, ...], theirs: tuple[Item, ...]) -> tuple[Item, ...]:
    others = set(theirs)
    return tuple(one for one in mine if one in others)


def plan_removal(store: Store, holding: Holding, bundles: Collection[str]) -> RemovalPlan:
    """Decide what has to go for some bundles to be gone; with all of them, all that the environment holds goes.

    The manifests of the bundles that stay are read: they may name the same chunks.
    """
    staying = {bundle: size for bundle, size in holding.manifests.items() if bundle not in bundles}
    if not staying:
        return _plan(holding, sorted(holding.manifests), set(holding.chunks), kept=0)
    catalog = Catalog(store, holding.prefix)
    needed: set[Digest] = set()
    unreadable = False
    for done in catalog.read(staying):
        needed |= {ref.digest for ref in done.value.chunks} if done.value else set()
        unreadable |= done.value is None
    going = {bundle: holding.manifests[bundle] for bundle in sorted(bundles) if bundle in holding.manifests}
    named = set(_chunks(catalog, going)) & holding.chunks.keys()
    # What cannot be read may name any chunk.
    if unreadable:
        return _plan(holding, list(going), set(), kept=len(named))
    return _plan(holding, list(going), named - needed, kept=0)


def _chunks(catalog: Catalog, bundles: dict[str, int]) -> Iterator[Digest]:
    for done in catalog.read(bundles):
        if done.value is not None:
            yield from (ref.digest for ref in done.value.chunks)


def _plan(holding: Holding, bundles: list[str], chunks: set[Digest], *, kept: int) -> RemovalPlan:
    everything = len(bundles) == len(holding.manifests)
    marked = sorted(holding.marks) if everything else [bundle for bundle in bundles if bundle in holding.marks]
    size = sum(holding.manifests[bundle] for bundle in bundles) + sum(holding.chunks[digest] for digest in chunks)
    return RemovalPlan(
        prefix=holding.prefix,
        bundles=tuple(bundles),
        marks=tuple((bundle, mark) for bundle in marked for mark in sorted(holding.marks[bundle])),
        signatures=tuple(one for one in sorted(holding.signatures) if everything or one[0] in bundles),
        leases=holding.leases if everything else (),
        chunks=tuple(sorted(chunks)),
        size=size,
        kept=kept,
        known=frozenset(holding.manifests),
    )
