"""Fetch the chunks of many bundles at once, and deliver each bundle when all of it is verified."""

from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field

from megacache._bundle import Unpacked, artifact_chunks, declared_names, unpack_chunk
from megacache._manifest import ChunkRef, Manifest
from megacache._parallel import Window, unordered
from megacache._store import Store
from megacache.errors import FormatError, MegacacheError

WINDOW = 256 << 20
"""Bytes in flight at most: chunks being read, decompressed or waiting for the rest of their bundle."""

Wanted = tuple[Manifest, ChunkRef]


@dataclass(frozen=True, slots=True, kw_only=True)
class Delivery:
    """Verified blobs of a bundle, or the fault for which it gives none."""

    manifest: Manifest
    chunks: tuple[ChunkRef, ...] = ()
    blobs: tuple[bytes, ...] = field(default=(), repr=False)
    """Each can be loaded on its own."""
    last: bool = False
    """True if nothing more of this bundle will follow."""
    fault: MegacacheError | None = None


class _Assembly:
    """The chunks of one bundle that have arrived and are not yet handed on."""

    def __init__(self, manifest: Manifest, window: Window) -> None:
        self.manifest = manifest
        self._window = window
        refs = artifact_chunks(manifest)
        self._missing = len(refs)
        self._piecemeal = sum(map(_weight, refs)) > window.size
        self._held: list[tuple[ChunkRef, bytes]] = []
        self._absent = set(declared_names(manifest))
        self.fault = self._check()

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
            self._held.append((ref, unpacked.blob))
            self._absent -= unpacked.names
        self.fault = self.fault or fault or self._check()
        if self.fault is not None:
            self._let_go()

    def ready(self) -> Iterator[Delivery]:
        """Yield what can be handed on now."""
        if self.fault is not None:
            if self.complete:
                yield Delivery(manifest=self.manifest, fault=self.fault)
        elif self._held and (self._piecemeal or self.complete):
            refs, blobs = zip(*self._held, strict=True)
            yield Delivery(manifest=self.manifest, chunks=refs, blobs=blobs, last=self.complete)
            self._let_go()

    def _check(self) -> MegacacheError | None:
        """Give the fault of a bundle whose chunks have all come and lack what its manifest promises."""
        if self._missing or not self._absent:
            return None
        kind, key, _ = min(self._absent)
        msg = f"{len(self._absent)} artifacts of the manifest are in no chunk, such as {kind} {key[:80]!r}"
        return FormatError(msg)

    def _let_go(self) -> None:
        for ref, _ in self._held:
            self._window.release(_weight(ref))
        self._held.clear()


def deliver(
    store: Store, manifests: Sequence[Manifest], *, locate: Callable[[ChunkRef], str], window_size: int = WINDOW
) -> Generator[Delivery]:
    """Read, verify and decompress chunks in parallel; yield one `Delivery` a bundle, in the order given.

    Of a bundle with a bad chunk nothing is delivered but the fault. A bundle that is larger than the window cannot be
    held until it is complete; its chunks, each verified on its own, are delivered as they come, and a fault may follow
    some of them. Chunks are admitted in order, so that the bundle whose turn it is never waits for a later one.
    """
    window = Window(window_size)
    assemblies = {manifest.bundle: _Assembly(manifest, window) for manifest in manifests}
    wanted: list[Wanted] = [(manifest, ref) for manifest in manifests for ref in artifact_chunks(manifest)]

    def fetch(item: Wanted) -> Unpacked:
        manifest, ref = item
        fault = assemblies[manifest.bundle].fault
        if fault is not None:
            raise fault
        return unpack_chunk(manifest, ref, store.read(locate(ref), size=ref.stored_size))

    arrivals = unordered(
        fetch,
        wanted,
        deadline=store.deadline,
        doing=f"downloading from {store.url}",
        admit=lambda item: window.acquire(_weight(item[1])),
    )
    try:
        for assembly in assemblies.values():
            yield from assembly.ready()
            while not assembly.complete:
                done = next(arrivals)
                manifest, ref = done.item
                assemblies[manifest.bundle].add(ref, done.value, done.fault)
                yield from assembly.ready()
    finally:
        arrivals.close()
        window.close()


def _weight(ref: ChunkRef) -> int:
    return ref.stored_size + ref.raw_size
