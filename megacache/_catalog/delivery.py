"""Fetch the chunks of many bundles at once, and deliver each bundle when all of it is verified."""

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Generic, Protocol, TypeVar

from megacache._bundle import ChunkRef, Manifest, Unpacked, chunks_of, declared_names, refusal, unpack_chunk
from megacache._catalog.node_cache import NodeCache
from megacache._runtime import WINDOW, Window, unordered
from megacache._store import Store, is_near
from megacache.errors import FormatError, MegacacheError

Value = TypeVar("Value")

THIS_NODE = "this node"
"""What gave a chunk that was not read from a store."""


class Ask(Protocol):
    """Does something with a store that holds an object of a bundle, or of any bundle if its id is empty."""

    def __call__(self, bundle: str, key: str, do: Callable[[Store], Value], /) -> Value:
        """Give what `do` gives; where several stores hold the object, another one is tried if it raises."""


@dataclass(frozen=True, slots=True)
class Fetched(Generic[Value]):
    """A chunk that has been read and proved."""

    value: Value
    """What the proof made of it."""
    source: str
    """URL of the store that gave it, or `THIS_NODE`."""
    keep: Callable[[], None]
    """Keeps it on this node; to be called in the same thread."""


def fetch_chunk(
    store: Store, key: str, ref: ChunkRef, prove: Callable[[bytes], Value], node: NodeCache | None
) -> Fetched[Value]:
    """Read a chunk from this node, or from the store if that is as near or the node has not kept it."""
    source = THIS_NODE

    def download() -> bytes:
        nonlocal source
        source = store.url
        return store.read(key, size=ref.stored_size)

    if node is None or is_near(store.url):
        return Fetched(prove(download()), source, _nothing)
    value, keep = node.get(ref, download, prove, store.deadline)
    return Fetched(value, source, keep)


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
    sources: Mapping[str, int] = field(default_factory=dict)
    """Bytes of the contents as stored, by what gave them: the URL of a store, or `THIS_NODE`."""


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
        self._sources: Counter[str] = Counter()
        self._absent = set(declared_names(order.manifest, files=order.files))
        self.fault = refusal(order.manifest) or self._check()

    @property
    def complete(self) -> bool:
        """True if all chunks have come, good or bad."""
        return not self._missing

    def add(self, ref: ChunkRef, fetched: Fetched[Unpacked] | None, fault: MegacacheError | None) -> None:
        """Take one chunk, or what went wrong with it."""
        self._missing -= 1
        if fetched is None:
            self._window.release(_weight(ref))
        else:
            self._held.append(fetched.value)
            self._sources[fetched.source] += ref.stored_size
            self._absent -= fetched.value.names
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
            contents, sources = tuple(self._held), dict(self._sources)
            yield Delivery(manifest=self.manifest, contents=contents, last=self.complete, sources=sources)
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
        self._sources.clear()


def deliver(
    store: Store,
    orders: Sequence[Order],
    *,
    locate: Callable[[str, ChunkRef], str],
    ask: Ask | None = None,
    node: NodeCache | None = None,
    window_size: int = WINDOW,
) -> Generator[Delivery]:
    """Read, verify and decompress chunks in parallel; yield one `Delivery` a bundle, in the order given.

    `locate` names a chunk of a bundle.

    Of a bundle with a bad chunk nothing is delivered but the fault. A bundle that is larger than the window cannot be
    held until it is complete; its chunks, each verified on its own, are delivered as they come, and a fault may follow
    some of them. The window holds chunks that are read, decompressed or waiting for the rest of their bundle. They are
    admitted in order, so that the bundle whose turn it is never waits for a later one. What `node` has kept is not read
    from the store. With `ask`, it chooses the store for each chunk.
    """
    window = Window(window_size)
    assemblies = [_Assembly(order, window) for order in orders]
    wanted = [(assembly, ref) for assembly in assemblies for ref in assembly.refs]
    keeping: dict[tuple[_Assembly, ChunkRef], Callable[[], None]] = {}

    def fetch(item: tuple[_Assembly, ChunkRef]) -> Fetched[Unpacked]:
        assembly, ref = item
        # Of a bundle that is bad already nothing more is read.
        if assembly.fault is not None:
            raise assembly.fault
        bundle = assembly.manifest.bundle

        def read(source: Store) -> Fetched[Unpacked]:
            return fetch_chunk(source, locate(bundle, ref), ref, prove, node)

        def prove(stored: bytes) -> Unpacked:
            return unpack_chunk(assembly.manifest, ref, stored)

        fetched = read(store) if ask is None else ask(bundle, locate(bundle, ref), read)
        keeping[item] = fetched.keep
        return fetched

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


def _nothing() -> None:
    """Keep nothing."""
