"""Keep a cache small: environments that nobody wants any more are withdrawn, and what nobody reads any more is deleted.

Everything that is deleted has been out of sight for the grace period, by the dates that the store gives: readers that
were in the middle of a bundle when it was withdrawn have long ended, and writers rely on no chunk that lay there
unnoticed (`Catalog.write`). An environment is withdrawn by marking its bundles, and is deleted by a later run. What is
pinned stays.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from megacache._bundle import PINNED, QUARANTINED, SUPERSEDED, Digest, EnvironmentPrefix
from megacache._catalog.catalog import Catalog
from megacache._catalog.inventory import Holding, given, holding_of
from megacache._catalog.removal import RemovalPlan
from megacache._runtime import ProgressCallback, moment_of, unordered
from megacache._store import Store


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How long what is kept."""

    now: float
    """Seconds since 1970."""
    grace: float
    """Seconds for which what is withdrawn or in no bundle is left alone; with 0, also where the store tells no age."""
    older_than: float | None = None
    """Seconds after its last publication when an environment is withdrawn."""
    keep: int | None = None
    """Environments of each GPU type that are kept, those with the last publications; all its CPUs make it one."""
    max_size: int | None = None
    """Bytes of all that is kept; what does not fit beside newer environments goes, the newest never."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RetentionPlan:
    """What becomes of one environment."""

    withdrawn: tuple[str, ...]
    """Bundles that will be marked, and deleted when their grace is over."""
    removal: RemovalPlan
    """What will be deleted."""
    waiting: int
    """Withdrawn bundles whose grace is not over."""
    unwanted: bool
    """True if the environment as a whole is to go."""
    untold: bool
    """True if objects may stay only because the store does not tell how old they are."""

    @property
    def prefix(self) -> EnvironmentPrefix:
        """Where they lie."""
        return self.removal.prefix

    @property
    def empty(self) -> bool:
        """True if there is nothing to do."""
        return not (self.withdrawn or self.removal.keys)

    def still(self, now: "RetentionPlan") -> "RetentionPlan":
        """Leave out what a newer plan does not hold any more, as when it was pinned while somebody was asked."""
        withdrawn = tuple(bundle for bundle in self.withdrawn if bundle in now.withdrawn)
        return replace(self, withdrawn=withdrawn, removal=self.removal.still(now.removal))

    def checked(self, store: Store, terms: Terms) -> "RetentionPlan":
        """Look at this environment once more, and leave out what was pinned or published to meanwhile."""
        holding = holding_of(store, self.prefix)
        published = holding.visible.keys() - self.removal.known
        unwanted = self.unwanted and not published
        return self.still(_Deciding(store, holding, terms, unwanted=unwanted).plan())

    def apply(self, store: Store, progress: ProgressCallback) -> "RetentionPlan":
        """Mark, then delete; give what was done."""
        catalog = Catalog(store, self.prefix)
        for done in unordered(
            lambda bundle: catalog.mark(bundle, SUPERSEDED),
            self.withdrawn,
            deadline=store.deadline,
            doing=f"writing to {store.url}",
        ):
            done.result()
        return replace(self, removal=self.removal.apply(store, progress))


def plan_retention(store: Store, holdings: Sequence[Holding], terms: Terms) -> tuple[RetentionPlan, ...]:
    """Decide what becomes of environments, together."""
    unwanted = set(_unwanted(store, holdings, terms))
    return tuple(_Deciding(store, one, terms, unwanted=one.prefix in unwanted).plan() for one in holdings)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Published:
    """What readers see of an environment."""

    prefix: EnvironmentPrefix
    family: str
    """Fingerprint of the environment for any CPU; without a GPU, its own."""
    last: float
    """When the newest of its bundles was published, in seconds since 1970; what is merged or copied is not newer."""
    size: int
    """Bytes; what is superseded takes room for a short while only, and does not count."""


def _unwanted(store: Store, holdings: Sequence[Holding], terms: Terms) -> Iterator[EnvironmentPrefix]:
    """Choose the environments that are not kept; one whose last publication cannot be dated is."""
    if terms.older_than is None and terms.keep is None and terms.max_size is None:
        return
    published = [found for one in holdings if (found := _published(store, one)) is not None]
    kept: dict[str, set[str]] = defaultdict(set)
    total = 0
    for one in sorted(published, key=lambda one: one.last, reverse=True):
        families = kept[one.prefix.device]
        is_old = terms.older_than is not None and terms.now - one.last >= terms.older_than
        if is_old or (terms.keep is not None and len(families - {one.family}) >= terms.keep):
            yield one.prefix
            continue
        if terms.max_size is not None and total + one.size > terms.max_size and any(kept.values()):
            yield one.prefix
            continue
        families.add(one.family)
        total += one.size


def _published(store: Store, holding: Holding) -> _Published | None:
    """Read when an environment was published to; raise `StoreError` if the store would not give a manifest."""
    times: list[float] = []
    chunks: dict[Digest, int] = {}
    family = holding.prefix.fingerprint
    for done in given(Catalog(store, holding.prefix).read(holding.visible)):
        told = moment_of(done.value.created) if done.value else None
        at = told.timestamp() if told else holding.modified.get(holding.prefix.manifest(done.item))
        if at is None:
            return None
        times.append(at)
        if done.value is not None:
            chunks |= {ref.digest: ref.stored_size for ref in done.value.chunks}
            found = done.value.environment
            if found.fingerprint == holding.prefix.fingerprint:
                family = (found.for_any_cpu or found).fingerprint
    if not times:
        return None
    size = sum(holding.visible.values()) + sum(chunks.values())
    return _Published(prefix=holding.prefix, family=family, last=max(times), size=size)


class _Deciding:
    """Decides on one environment."""

    def __init__(self, store: Store, holding: Holding, terms: Terms, *, unwanted: bool) -> None:
        self._store = store
        self._holding = holding
        self._terms = terms
        self._unwanted = unwanted
        self._untold = False

    def plan(self) -> RetentionPlan:
        """Read the manifests that stay, if any chunk may go."""
        holding, prefix = self._holding, self._holding.prefix
        pinned = {bundle for bundle, marks in holding.marks.items() if PINNED in marks}
        leaving = {bundle for bundle in holding.visible if self._unwanted and bundle not in pinned}
        hidden = holding.manifests.keys() - holding.visible.keys() - pinned
        dead = {bundle for bundle in hidden if self._is_over(bundle)}
        if not self._terms.grace:
            dead |= leaving
        staying = {bundle: size for bundle, size in holding.manifests.items() if bundle not in dead}
        marks = [(bundle, mark) for bundle in sorted(holding.marks) for mark in sorted(holding.marks[bundle])]
        chunks, kept = self._unnamed(staying)
        removal = RemovalPlan(
            prefix=prefix,
            bundles=tuple(sorted(dead)),
            marks=tuple(one for one in marks if self._goes(one[0], prefix.mark(*one), dead)),
            signatures=tuple(
                one for one in sorted(holding.signatures) if self._goes(one[0], prefix.signature(*one), dead)
            ),
            leases=tuple(one for one in holding.leases if self._is_old(prefix.lease(one))),
            chunks=chunks,
            size=sum(holding.manifests[bundle] for bundle in dead) + sum(holding.chunks[digest] for digest in chunks),
            kept=kept,
            known=frozenset(holding.manifests),
        )
        return RetentionPlan(
            withdrawn=tuple(sorted(leaving - dead)),
            removal=removal,
            waiting=len(hidden - dead),
            unwanted=self._unwanted,
            untold=self._untold,
        )

    def _is_over(self, bundle: str) -> bool:
        """Tell whether a bundle has been out of sight for the grace period."""
        marks = self._holding.marks[bundle] & {QUARANTINED, SUPERSEDED}
        return any(self._is_old(self._holding.prefix.mark(bundle, mark)) for mark in marks)

    def _goes(self, bundle: str, key: str, dead: set[str]) -> bool:
        """Tell whether a mark or a signature goes: with its bundle, or long after it."""
        return bundle in dead or (bundle not in self._holding.manifests and self._is_old(key))

    def _is_old(self, key: str) -> bool:
        if not self._terms.grace:
            return True
        at = self._holding.modified.get(key)
        if at is None:
            self._untold = True
            return False
        return self._terms.now - at >= self._terms.grace

    def _unnamed(self, staying: dict[str, int]) -> tuple[tuple[Digest, ...], int]:
        """Give the old chunks that no bundle needs, and how many are kept because a manifest cannot be read."""
        old = {one for one in self._holding.chunks if self._is_old(self._holding.prefix.chunk(one))}
        if not old:
            return (), 0
        unreadable = False
        for done in Catalog(self._store, self._holding.prefix).read(staying):
            unreadable |= done.value is None
            old -= {ref.digest for ref in done.value.chunks} if done.value else set()
        return ((), len(old)) if unreadable else (tuple(sorted(old)), 0)
