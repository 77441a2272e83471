"""Merge bundles into few that supersede them: what is merged is decided first, shown, and then done.

Nobody is held up. The merged bundle is written as any other is, and then its sources are marked: until the last mark
is written, readers find the same content in both. Two who merge the same bundles name the same one, which one of them
writes; where one saw more than the other, both bundles serve until they are merged themselves.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from megacache._bundle import (
    COPIED,
    EXPLAIN_PART,
    FORMAT,
    PINNED,
    QUARANTINED,
    SUPERSEDED,
    EnvironmentPrefix,
    FilesPart,
    Manifest,
    Signature,
    chunks_of,
    environment_prefix,
    is_withdrawn,
    merged,
    parents_first,
    refusal,
)
from megacache._catalog.catalog import Catalog
from megacache._catalog.inventory import Holding
from megacache._catalog.limits import affordable_manifests, weight
from megacache._catalog.listing import Listing
from megacache._catalog.repacking import Repacking
from megacache._runtime import WINDOW, ProgressCallback, unordered
from megacache._store import Store
from megacache._trust import Signing, TrustPolicy
from megacache.errors import BundleError, FormatError, MegacacheError, MissingError, SettingsError, UntrustedError

_WITHDRAWN = "it was withdrawn, or merged by another, meanwhile; the others stay as they are until the next time"
_TAKEN = "its id is taken by a withdrawn bundle, or by one with other content"
_COPY = "a copy of a bundle in another place; compact that place instead"
_LARGE = WINDOW // 2
"""Bytes of content from which on a bundle is not worth merging."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CompactionPlan:
    """What will be merged in one environment."""

    prefix: EnvironmentPrefix
    merges: tuple[tuple[Manifest, ...], ...]
    """The sources of each merged bundle, parents first."""
    staying: tuple[tuple[str, str], ...]
    """Ids of the other visible bundles, each with the reason why it stays."""

    @property
    def bundles(self) -> int:
        """Count the bundles that will be superseded."""
        return sum(map(len, self.merges))

    @property
    def size(self) -> int:
        """Bytes to be read, as stored."""
        return sum(ref.stored_size for sources in self.merges for one in sources for ref in one.chunks)


@dataclass(frozen=True, slots=True, kw_only=True)
class Compacted:
    """What has been merged in one environment."""

    prefix: EnvironmentPrefix
    merged: Mapping[str, tuple[str, ...]]
    """Ids of the bundles that each merged bundle supersedes, by its id."""
    failed: tuple[tuple[str, MegacacheError], ...]
    """Ids of bundles that were not merged after all, each with its fault."""


class Compaction:
    """Merges the bundles of one environment."""

    def __init__(self, store: Store, holding: Holding, signing: Signing) -> None:
        """Look at one environment; raise `SettingsError` if readers would refuse what is merged."""
        if signing.objection:
            raise SettingsError(signing.objection)
        if signing.policy is not None and signing.policy.threshold > 1:
            raise SettingsError(
                f"{signing.policy.threshold} keys must have signed, but a merged bundle is signed by one",
                hint="readers would refuse it; leave these bundles unmerged",
            )
        self._store = store
        self._holding = holding
        self._signer: Any = signing.signer
        self._catalog = Catalog(store, holding.prefix, signing.policy, holding.signatures)
        self._failed: list[tuple[str, MegacacheError]] = []

    def plan(self) -> CompactionPlan:
        """Read the manifests, and decide; raise `SettingsError` if nobody signs what is merged of what is signed."""
        staying = {}
        usable = []
        for bundle, manifest, why in self._read():
            if manifest is None:
                staying[bundle] = why
            else:
                usable.append(manifest)
        merges = [batch for kin in _kindred(parents_first(usable)) for batch in _batches(kin) if len(batch) > 1]
        taken = {one.bundle for batch in merges for one in batch}
        staying |= {one.bundle: "nothing of its kind to merge it with" for one in usable if one.bundle not in taken}
        return CompactionPlan(prefix=self._holding.prefix, merges=tuple(merges), staying=tuple(sorted(staying.items())))

    def apply(self, plan: CompactionPlan, progress: ProgressCallback) -> Compacted:
        """Write the merged bundles, and mark their sources; those that are damaged are left as they are."""
        done: dict[str, tuple[str, ...]] = {}
        withdrawn = {bundle for bundle, marks in self._holding.marks.items() if is_withdrawn(marks)}
        repacking = Repacking(self._catalog, progress, total=plan.size)
        for planned in plan.merges:
            sources: Sequence[Manifest] = planned
            while len(sources) > 1:
                wanted = merged(sources, withdrawn)
                chunks, faults = repacking.run(sources, wanted)
                if not faults:
                    done |= self._replace(sources, replace(wanted, chunks=chunks))
                    break
                self._failed += faults.items()
                sources = [one for one in sources if one.bundle not in faults]
        return Compacted(prefix=self._holding.prefix, merged=done, failed=tuple(self._failed))

    def _read(self) -> Iterator[tuple[str, Manifest | None, str]]:
        """Give each visible bundle, with its manifest if it may be merged, else with the reason why not."""
        visible = self._holding.visible
        pinned = {bundle for bundle in visible if PINNED in self._holding.marks.get(bundle, ())}
        yield from ((bundle, None, "pinned") for bundle in pinned)
        copied = {bundle for bundle in visible if COPIED in self._holding.marks.get(bundle, ())} - pinned
        yield from ((bundle, None, _COPY) for bundle in copied)
        kept = pinned | copied
        left = affordable_manifests({bundle: size for bundle, size in visible.items() if bundle not in kept})
        yield from ((bundle, None, "too many manifests") for bundle in visible.keys() - kept - left.keys())
        for done in unordered(
            lambda bundle: self._catalog.read_with_signatures(bundle, left[bundle]),
            tuple(left),
            deadline=self._store.deadline,
            doing=f"reading manifests from {self._store.url}",
        ):
            if done.value is None:
                yield done.item, None, str(done.fault)
                continue
            manifest, signatures = done.value
            is_signed = self._is_signed(done.item, signatures)
            why = self._objection(manifest)
            if is_signed and not why and not self._is_own(done.item, left[done.item]):
                why = "signed by another key, and its readers may trust no other"
            yield done.item, None if why else manifest, why

    def _is_signed(self, bundle: str, signatures: Sequence[Signature]) -> bool:
        """Tell whether a bundle is signed; raise `SettingsError` if it is, and what is merged would not be."""
        added = any(signed == bundle for signed, _ in self._holding.signatures)
        is_signed = added or any(one.scope == self._store.scope for one in signatures)
        if is_signed and self._signer is None:
            raise SettingsError(
                f"bundle {bundle} is signed, and no key signs what it would be merged into",
                hint="give --key, or set MEGACACHE_SIGNING_KEY",
            )
        return is_signed

    def _is_own(self, bundle: str, size: int) -> bool:
        """Tell whether those who trust the key that signs what is merged, and no other, can read a bundle."""
        own = TrustPolicy(keys=(self._signer.public_key,), threshold=1)
        try:
            Catalog(self._store, self._holding.prefix, own, self._holding.signatures).read_one(bundle, size)
        except UntrustedError:
            return False
        return True

    def _objection(self, manifest: Manifest) -> str:
        """Say why a bundle must stay as it is; empty if it need not."""
        place = environment_prefix(manifest.environment.device, manifest.environment.fingerprint)
        if place != self._holding.prefix:
            return f"its environment belongs under {place.path}"
        if fault := refusal(manifest) or self._holding.lacking(manifest):
            return str(fault)
        parts = {ref.part for ref in chunks_of(manifest, files=True)} | {EXPLAIN_PART}
        if manifest.minor > FORMAT[1] or any(ref.part not in parts for ref in manifest.chunks):
            return "written by a later megacache, which may have put more in it than this one would keep"
        if weight(manifest.chunks) > _LARGE:
            return "large enough already"
        return ""

    def _replace(self, sources: Sequence[Manifest], manifest: Manifest) -> Mapping[str, tuple[str, ...]]:
        """Announce what was merged, then mark the sources, unless one of them was withdrawn meanwhile."""
        before = self._catalog.list().visible.keys()
        # What another has merged since the plan was made may have been withdrawn since, under the name of that merge.
        if manifest.bundle not in before and (gone := [one.bundle for one in sources if one.bundle not in before]):
            self._failed += ((bundle, MissingError(_WITHDRAWN)) for bundle in gone)
            return {}
        created = self._catalog.announce(manifest, self._signer)
        listing = self._catalog.list()
        in_place = listing.visible.keys() | listing.withdrawn - listing.quarantined.keys()
        if lost := [one.bundle for one in sources if one.bundle not in in_place]:
            if created:
                self._catalog.mark(manifest.bundle, QUARANTINED)
            self._failed += ((bundle, MissingError(_WITHDRAWN)) for bundle in lost)
            return {}
        if not self._serves(manifest, listing, created=created):
            self._failed.append(
                (manifest.bundle, FormatError(_TAKEN, hint="remove that bundle with `megacache rm`, and compact again"))
            )
            return {}
        bundles = tuple(one.bundle for one in sources)
        for done in unordered(
            lambda bundle: self._catalog.mark(bundle, SUPERSEDED),
            bundles,
            deadline=self._store.deadline,
            doing=f"writing to {self._store.url}",
        ):
            done.result()
        return {manifest.bundle: bundles}

    def _serves(self, manifest: Manifest, listing: Listing, *, created: bool) -> bool:
        """Tell whether readers find what was merged; what another wrote under the same name is read for that."""
        size = listing.visible.get(manifest.bundle)
        if size is None or created:
            return size is not None
        try:
            found = self._catalog.knowing(listing).read_one(manifest.bundle, size)
        except BundleError:
            return False
        return set(found.artifacts) == set(manifest.artifacts) and set(found.files.index) == set(manifest.files.index)


def _kindred(manifests: Iterable[Manifest]) -> Iterator[list[Manifest]]:
    """Put together, in the order given, the bundles that differ only in what can be merged.

    Compiled files are of one kind if the same facts guard them and they lie under the same roots. Bundles without such
    files go with the largest kind that agrees in all else.
    """
    kinds: list[tuple[Manifest, _FilesKind | None, list[Manifest]]] = []
    for one in manifests:
        rest, files = _unmergeable(one), _files_kind(one)
        found = next((members for known, kind, members in kinds if known == rest and kind == files), None)
        if found is None:
            kinds.append((rest, files, found := []))
        found.append(one)
    for rest, files, members in kinds:
        others = [theirs for known, kind, theirs in kinds if files is None and kind is not None and known == rest]
        if others:
            max(others, key=len).extend(members)
            members.clear()
    yield from (parents_first(members) for _, _, members in kinds)


_FilesKind = tuple[Mapping[str, str], frozenset[str]]


def _files_kind(manifest: Manifest) -> _FilesKind | None:
    roots = frozenset(file.root for file in manifest.files.index)
    return (manifest.files.guard, roots) if roots else None


def _unmergeable(manifest: Manifest) -> Manifest:
    """Give what has to be equal, whatever fields a manifest may get."""
    return replace(
        manifest, bundle="", created="", producer="", parents=(), artifacts=(), chunks=(), labels={}, files=FilesPart()
    )


def _batches(manifests: Iterable[Manifest]) -> Iterator[tuple[Manifest, ...]]:
    """Split bundles, in the order given, so that no reader has to take more at once than it can hold."""
    batch: list[Manifest] = []
    for one in manifests:
        if batch and weight(ref for member in [*batch, one] for ref in member.chunks) > WINDOW:
            yield tuple(batch)
            batch = []
        batch.append(one)
    if batch:
        yield tuple(batch)
