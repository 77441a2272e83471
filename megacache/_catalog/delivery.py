"""Fetch the chunks of many bundles at once, and deliver each bundle when all of it is verified."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

from megacache._bundle import ChunkRef, Manifest, Unpacked, chunks_of, declared_names, refusal, unpack_chunk
from megacache._catalog.node_cache import NodeCache
from megacache._runtime import WINDOW, Window, unordered
from megacache._store import Store
from megacache.errors import FormatError, MegacacheError


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """A bundle that is wanted."""

    manifest: Manifest
    files: bool
    """Its compiled files as well."""

    @property
    def chunks(self) -> tuple[ChunkRef, ...]:
        """Give the chunks to be read."""
        return chunks_of(self.manifest, files=self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Verified content of a bundle, or the fault for which it gives none."""

    manifest: Manifest
    contents: tuple[Unpacked, ...] = field(default=(), repr=False)
    """Each chunk can be used on its own."""
    last: bool = False
    """True if nothing more of this bundle will follow."""
    fault: MegacacheError | None = None


class _Assembly:
    """The chunks of one bundle that have arrived and are not yet delivered."""

    def __init__(self, order: Order, window: Window) -> None:
        self.manifest = order.manifest
        self._window = window
        self.refs = order.chunks
        self._missing = len(self.refs)
        # A bundle larger than the window can never be held whole: its chunks are delivered one by one.
        self._piecemeal = sum(map(_weight, self.refs)) > window.size
        self._held: list[Unpacked] = []
        self._absent = set(declared_names(order.manifest, files=order.files))
        self.fault = refusal(order.manifest) or self._check()

    @property
    def complete(self) -> bool:
        """True if all chunks have come, good or bad."""
        return not self._missing

    def add(self, ref: ChunkRef, unpacked: Unpacked | None, fault: MegacacheError | None) -> None:
        """Take one chunk, or what went wrong with it."""
        self._missing -= 1
        if unpacked is None:
            self._window.release(_weight(ref))
        else:
            self._held.append(unpacked)
            self._absent -= unpacked.names
        self.fault = self.fault or fault or self._check()
        if self.fault is not None:
            self._let_go()

    def ready(self) -> Iterator[Delivery]:
        """Yield what can be delivered now."""
        if self.fault is not None:
            # Not sooner, for other chunks of the bundle may be on their way.
            if self.complete:
                yield Delivery(manifest=self.manifest, fault=self.fault)
        elif self._held and (self._piecemeal or self.complete):
            yield Delivery(manifest=self.manifest, contents=tuple(self._held), last=self.complete)
            self._let_go()

    def _check(self) -> MegacacheError | None:
        """Give the fault of a bundle whose chunks have all come and lack what its manifest promises."""
        if self._missing or not self._absent:
            return None
        part, kind, key, _ = min(self._absent)
        msg = f"{len(self._absent)} {part} of the manifest are in no chunk, such as {kind} {key[:80]!r}"
        return FormatError(msg)

    def _let_go(self) -> None:
        for unpacked in self._held:
            self._window.release(_weight(unpacked.ref))
        self._held.clear()


def deliver(
    store: Store,
    orders: Sequence[Order],
    *,
    locate: Callable[[ChunkRef], str],
    node: NodeCache | None = None,
    window_size: int = WINDOW,
) -> Generator[Delivery]:
    """Read, verify and decompress chunks in parallel; yield one `Delivery` a bundle, in the order given.

    Of a bundle with a bad chunk nothing is delivered but the fault. A bundle that is larger than the window cannot be
    held until it is complete; its chunks, each verified on its own, are delivered as they come, and a fault may follow
    some of them. The window holds chunks that are read, decompressed or waiting for the rest of their bundle. They are
    admitted in order, so that the bundle whose turn it is never waits for a later one. What `node` has kept is not read
    from the store.
    """
    window = Window(window_size)
    assemblies = [_Assembly(order, window) for order in orders]
    wanted = [(assembly, ref) for assembly in assemblies for ref in assembly.refs]
    keeping: dict[tuple[_Assembly, ChunkRef], Callable[[], None]] = {}

    def fetch(item: tuple[_Assembly, ChunkRef]) -> Unpacked:
        assembly, ref = item
        # Of a bundle that is bad already nothing more is read.
        if assembly.fault is not None:
            raise assembly.fault

        def download() -> bytes:
            return store.read(locate(ref), size=ref.stored_size)

        def prove(stored: bytes) -> Unpacked:
            return unpack_chunk(assembly.manifest, ref, stored)

        if node is None:
            return prove(download())
        unpacked, keeping[item] = node.get(ref, download, prove, store.deadline)
        return unpacked

    def keep(item: tuple[_Assembly, ChunkRef]) -> None:
        if item in keeping:
            keeping.pop(item)()

    arrivals = unordered(
        fetch,
        wanted,
        deadline=store.deadline,
        doing=f"downloading from {store.url}",
        admit=lambda item: window.acquire(_weight(item[1])),
        after=keep,
    )
    try:
        for assembly in assemblies:
            yield from assembly.ready()
            while not assembly.complete:
                done = next(arrivals)
                arrived, ref = done.item
                arrived.add(ref, done.value, done.fault)
                yield from assembly.ready()
    finally:
        arrivals.close()
        window.close()


def _weight(ref: ChunkRef) -> int:
    return ref.stored_size + ref.raw_size
