"""Copy bundles between two stores as they are: no byte is changed, and none is trusted before it is compared."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from megacache._catalog import Catalog
from megacache._digest import Digest
from megacache._inventory import Holding, Inventory
from megacache._layout import EnvironmentPrefix
from megacache._manifest import ChunkRef, unseal
from megacache._parallel import Done, unordered, within_window
from megacache._results import Progress, ProgressCallback
from megacache._store import Store
from megacache.errors import IntegrityError, MegacacheError


@dataclass(frozen=True, slots=True, kw_only=True)
class Selected:
    """Bundles of one environment that are to be copied."""

    holding: Holding
    bundles: tuple[str, ...]


@dataclass(slots=True, kw_only=True)
class _Order:
    """A bundle on its way."""

    prefix: EnvironmentPrefix
    bundle: str
    sealed: bytes = field(repr=False)
    chunks: tuple[ChunkRef, ...]
    missing: int
    fault: MegacacheError | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Transferred:
    """What was copied."""

    copied: tuple[str, ...]
    """Ids of bundles that were not in the target before."""
    present: tuple[str, ...]
    """Ids of bundles that were there already."""
    failed: tuple[tuple[str, MegacacheError], ...]
    """Ids of bundles that were not copied, each with its fault."""
    chunks: int
    """Chunks that were copied; those which the target held already are not copied again."""
    bytes_stored: int
    """Their size."""


def outlook(target: Store, selected: Sequence[Selected]) -> Transferred:
    """Say what a run would copy, after one listing of the target; chunks and bytes are the most that it may move."""
    there = {holding.prefix: holding for holding in Inventory.of(target).holdings}
    copied: list[str] = []
    present: list[str] = []
    sizes: list[int] = []
    for one in selected:
        held = there.get(one.holding.prefix, Holding(prefix=one.holding.prefix))
        present += [bundle for bundle in one.bundles if bundle in held.manifests]
        if missing := [bundle for bundle in one.bundles if bundle not in held.manifests]:
            copied += missing
            sizes += [size for digest, size in one.holding.chunks.items() if digest not in held.chunks]
    return Transferred(
        copied=tuple(copied), present=tuple(present), failed=(), chunks=len(sizes), bytes_stored=sum(sizes)
    )


class Transfer:
    """One run; one that was cut short is taken up where it ended by running it again."""

    def __init__(self, source: Store, target: Store, progress: ProgressCallback) -> None:
        self._source = source
        self._target = target
        self._progress = progress
        self._copied: list[str] = []
        self._present: list[str] = []
        self._failed: list[tuple[str, MegacacheError]] = []
        self._sizes: list[int] = []

    def run(self, selected: Sequence[Selected]) -> Transferred:
        """Copy the chunks that the target lacks, and each manifest after the last chunk of its bundle.

        A bundle with a chunk that is damaged, missing or refused is not copied; the others are. Raises `StoreError`
        where a store cannot be listed, a manifest cannot be written, or time is over.
        """
        there = {holding.prefix: holding for holding in Inventory.of(self._target).holdings}
        orders: list[_Order] = []
        for one in selected:
            prefix = one.holding.prefix
            orders += self._orders(one, there.get(prefix, Holding(prefix=prefix)))
        self._copy(orders, {prefix: dict(holding.chunks) for prefix, holding in there.items()})
        return Transferred(
            copied=tuple(self._copied),
            present=tuple(self._present),
            failed=tuple(self._failed),
            chunks=len(self._sizes),
            bytes_stored=sum(self._sizes),
        )

    def _orders(self, selected: Selected, there: Holding) -> Iterator[_Order]:
        self._present += [bundle for bundle in selected.bundles if bundle in there.manifests]
        wanted = [bundle for bundle in selected.bundles if bundle not in there.manifests]
        catalog = Catalog(self._source, selected.holding.prefix)
        for done in unordered(
            lambda bundle: catalog.read_sealed(bundle, selected.holding.manifests[bundle]),
            wanted,
            deadline=self._source.deadline,
            doing=f"reading manifests from {self._source.url}",
        ):
            if done.value is None:
                self._fail(done.item, done.fault)
                continue
            refs = tuple({ref.digest: ref for ref in unseal(done.value).chunks}.values())
            prefix = selected.holding.prefix
            yield _Order(prefix=prefix, bundle=done.item, sealed=done.value, chunks=refs, missing=len(refs))

    def _copy(self, orders: Sequence[_Order], there: "dict[EnvironmentPrefix, dict[Digest, int]]") -> None:
        waiting: dict[tuple[EnvironmentPrefix, Digest], list[_Order]] = {}
        wanted: list[tuple[EnvironmentPrefix, ChunkRef]] = []
        for order in orders:
            for ref in order.chunks:
                size = there.get(order.prefix, {}).get(ref.digest)
                if size is not None:
                    self._arrive(order, _damage(ref, size))
                    continue
                if (order.prefix, ref.digest) not in waiting:
                    wanted.append((order.prefix, ref))
                waiting.setdefault((order.prefix, ref.digest), []).append(order)
            if not order.chunks:
                self._conclude(order)
        total = sum(ref.stored_size for _, ref in wanted)
        for done in self._transport(wanted):
            prefix, ref = done.item
            if done.fault is None:
                self._sizes.append(ref.stored_size)
            self._progress(Progress(stage="copy", done=sum(self._sizes), total=total))
            for order in waiting[prefix, ref.digest]:
                self._arrive(order, done.fault)

    def _transport(
        self, wanted: "Sequence[tuple[EnvironmentPrefix, ChunkRef]]"
    ) -> "Iterator[Done[tuple[EnvironmentPrefix, ChunkRef], None]]":
        def copy(item: tuple[EnvironmentPrefix, ChunkRef]) -> None:
            prefix, ref = item
            key = prefix.chunk(ref.digest)
            data = self._source.read(key, size=ref.stored_size)
            if Digest.of(data) != ref.digest:
                raise IntegrityError(f"chunk {ref.digest.hex[:12]}", expected=ref.digest, actual=Digest.of(data))
            self._target.create(key, data)

        return within_window(
            copy,
            wanted,
            weight=lambda item: item[1].stored_size,
            deadline=self._source.deadline,
            doing=f"copying from {self._source.url} to {self._target.url}",
        )

    def _arrive(self, order: _Order, fault: MegacacheError | None) -> None:
        order.missing -= 1
        order.fault = order.fault or fault
        if not order.missing:
            self._conclude(order)

    def _conclude(self, order: _Order) -> None:
        if order.fault is not None:
            self._fail(order.bundle, order.fault)
        elif Catalog(self._target, order.prefix).announce_sealed(order.bundle, order.sealed):
            self._copied.append(order.bundle)
        else:
            self._present.append(order.bundle)

    def _fail(self, bundle: str, fault: MegacacheError | None) -> None:
        if fault is not None:
            self._failed.append((bundle, fault))


def _damage(ref: ChunkRef, size: int) -> MegacacheError | None:
    """Say that the target already holds a chunk which cannot be the right one, and which nothing may overwrite."""
    if size == ref.stored_size:
        return None
    what = f"chunk {ref.digest.hex[:12]} in the target"
    return IntegrityError(what, expected=f"{ref.stored_size} bytes", actual=f"{size} bytes")
