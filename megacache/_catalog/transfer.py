"""Copy bundles between two stores as they are: no byte is changed, and none is trusted before it is compared."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

from megacache._bundle import ChunkRef, EnvironmentPrefix, Manifest, check_stored, unseal
from megacache._catalog.catalog import Catalog
from megacache._catalog.inventory import Holding, Inventory
from megacache._runtime import Done, Progress, ProgressCallback, unordered, within_window
from megacache._store import Store
from megacache._trust import TrustPolicy
from megacache.errors import IntegrityError, MegacacheError

_Chunk = tuple[EnvironmentPrefix, ChunkRef]
"""A chunk, and the environment under which it lies."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """Bundles of one environment that are to be copied."""

    holding: Holding
    bundles: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """What was copied."""

    copied: tuple[str, ...]
    """Ids of bundles that were not in the target before."""
    present: tuple[str, ...]
    """Ids of bundles that were there already; what they lacked was copied as well."""
    failed: tuple[tuple[str, MegacacheError], ...]
    """Ids of bundles that were not copied, or are not whole in the target, each with its fault."""
    chunks: int
    """Chunks that were copied; those which the target held already are not copied again."""
    bytes_stored: int
    """Their size."""


@dataclass(slots=True, kw_only=True)
class _Copy:
    """A bundle that is being copied."""

    prefix: EnvironmentPrefix
    bundle: str
    sealed: bytes | None = field(repr=False)
    """Its manifest; None if the target has one."""
    lacking: tuple[ChunkRef, ...]
    """Chunks that the target lacks."""
    missing: int
    fault: MegacacheError | None = None


class Transfer:
    """One run; one that was cut short is taken up where it ended by running it again."""

    def __init__(
        self, source: Store, target: Store, progress: ProgressCallback, policy: TrustPolicy | None = None
    ) -> None:
        """Look at two stores; with a policy, what it does not accept in the source is not copied."""
        self._source = source
        self._target = target
        self._progress = progress
        self._policy = policy
        self._copied: list[str] = []
        self._present: list[str] = []
        self._failed: list[tuple[str, MegacacheError]] = []
        self._sizes: list[int] = []

    def outlook(self, selected: Sequence[Selected]) -> Transferred:
        """Say what `run` would copy, from the manifests alone; chunks and bytes are the most that it may move."""
        copies = sorted(self._copies(selected), key=lambda copy: copy.bundle)
        lacking = {(copy.prefix, ref) for copy in copies for ref in copy.lacking}
        return Transferred(
            copied=tuple(copy.bundle for copy in copies if copy.sealed is not None),
            present=tuple(copy.bundle for copy in copies if copy.sealed is None),
            failed=tuple(self._failed),
            chunks=len(lacking),
            bytes_stored=sum(ref.stored_size for _, ref in lacking),
        )

    def run(self, selected: Sequence[Selected]) -> Transferred:
        """Copy the chunks that the target lacks, and each manifest after the last chunk of its bundle.

        A bundle that is not trusted, or has a chunk that is damaged, missing or refused, is not copied; the others are.
        Raises `StoreError` where a store cannot be listed, a manifest cannot be written, or time is over.
        """
        waiting: dict[_Chunk, list[_Copy]] = {}
        # All manifests are read before anything is copied: a source that cannot be read changes nothing.
        for copy in list(self._copies(selected)):
            for ref in copy.lacking:
                waiting.setdefault((copy.prefix, ref), []).append(copy)
            if not copy.lacking:
                self._conclude(copy)
        self._copy(waiting)
        return Transferred(
            copied=tuple(self._copied),
            present=tuple(self._present),
            failed=tuple(self._failed),
            chunks=len(self._sizes),
            bytes_stored=sum(self._sizes),
        )

    def _copies(self, selected: Sequence[Selected]) -> Iterator[_Copy]:
        there = {holding.prefix: holding for holding in Inventory.of(self._target).holdings}
        for one in selected:
            held = there.get(one.holding.prefix, Holding(prefix=one.holding.prefix))
            for done in self._read(one, held):
                if done.value is None:
                    self._fail(done.item, done.fault)
                else:
                    yield done.value

    def _read(self, selected: Selected, held: Holding) -> Iterator[Done[str, _Copy]]:
        """Read the manifests, and see what the target lacks."""
        prefix, manifests = selected.holding.prefix, selected.holding.manifests
        source = Catalog(self._source, prefix, self._policy, selected.holding.signatures)
        target = Catalog(self._target, prefix)

        def read(bundle: str) -> _Copy:
            present = bundle in held.manifests
            sealed = b"" if present and self._policy is None else source.read_sealed(bundle, manifests[bundle])
            # Readers of the target go by the manifest there, which may name other chunks.
            manifest = target.read_one(bundle, held.manifests[bundle]) if present else unseal(sealed)
            lacking = tuple(_lacking(manifest, held))
            return _Copy(
                prefix=prefix,
                bundle=bundle,
                sealed=None if present else sealed,
                lacking=lacking,
                missing=len(lacking),
            )

        return unordered(
            read,
            selected.bundles,
            deadline=self._source.deadline,
            doing=f"reading manifests from {self._source.url} and {self._target.url}",
        )

    def _copy(self, waiting: dict[_Chunk, list[_Copy]]) -> None:
        total = sum(ref.stored_size for _, ref in waiting)
        for done in self._transport(tuple(waiting)):
            if done.fault is None:
                self._sizes.append(done.item[1].stored_size)
            self._progress(Progress(stage="copy", done=sum(self._sizes), total=total))
            for copy in waiting[done.item]:
                self._arrive(copy, done.fault)

    def _transport(self, wanted: Sequence[_Chunk]) -> Iterator[Done[_Chunk, None]]:
        def copy(item: _Chunk) -> None:
            prefix, ref = item
            key = prefix.chunk(ref.digest)
            data = self._source.read(key, size=ref.stored_size)
            check_stored(ref, data)
            self._target.create(key, data)

        return within_window(
            copy,
            wanted,
            weight=lambda item: item[1].stored_size,
            deadline=self._source.deadline,
            doing=f"copying from {self._source.url} to {self._target.url}",
        )

    def _arrive(self, copy: _Copy, fault: MegacacheError | None) -> None:
        copy.missing -= 1
        copy.fault = copy.fault or fault
        if not copy.missing:
            self._conclude(copy)

    def _conclude(self, copy: _Copy) -> None:
        if copy.fault is not None:
            self._fail(copy.bundle, copy.fault)
        elif copy.sealed is not None and self._announce(copy, copy.sealed):
            self._copied.append(copy.bundle)
        else:
            self._present.append(copy.bundle)

    def _announce(self, copy: _Copy, sealed: bytes) -> bool:
        return Catalog(self._target, copy.prefix).announce_sealed(copy.bundle, sealed)

    def _fail(self, bundle: str, fault: MegacacheError | None) -> None:
        if fault is not None:
            self._failed.append((bundle, fault))


def _lacking(manifest: Manifest, held: Holding) -> Collection[ChunkRef]:
    """Give the chunks that the target lacks; raise `IntegrityError` for one of another size."""
    lacking = {}
    for ref in manifest.chunks:
        size = held.chunks.get(ref.digest)
        if size is None:
            lacking[ref.digest] = ref
        elif size != ref.stored_size:  # nothing may overwrite it
            what = f"chunk {ref.digest.hex[:12]} in the target"
            raise IntegrityError(what, expected=f"{ref.stored_size} bytes", actual=f"{size} bytes")
    return lacking.values()
