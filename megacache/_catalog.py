"""The bundles of one environment in a store: list, read, write."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import accumulate
from typing import Self

from megacache._chunk import Payload, open_chunk, pack_chunk
from megacache._delivery import Delivery, Order, deliver
from megacache._environment import Environment
from megacache._layout import (
    EnvironmentPrefix,
    environment_prefix,
    manifest_name,
    split_listing,
)
from megacache._manifest import MAX_MANIFEST_SIZE, ChunkRef, Manifest, seal, unseal
from megacache._parallel import Done, Window, unordered
from megacache._store import Store
from megacache.errors import FormatError

UPLOAD_WINDOW = 128 << 20
"""Bytes of content that are being compressed and uploaded at once, at most."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What one LIST of an environment's bundles tells."""

    visible: Mapping[str, int]
    """Size of the manifest in bytes, by bundle id."""
    withdrawn: frozenset[str]
    """Ids that have a mark which hides them from readers."""


class Catalog:
    """The bundles for one environment."""

    def __init__(self, store: Store, prefix: EnvironmentPrefix) -> None:
        self._store = store
        self._prefix = prefix

    @classmethod
    def of(cls, store: Store, environment: Environment) -> Self:
        """Make the catalog of an environment."""
        return cls(store, environment_prefix(environment.device, environment.fingerprint))

    def list(self) -> Listing:
        """List the bundles."""
        sizes = {entry.key: entry.size for entry in self._store.list(self._prefix.bundles)}
        visible, withdrawn = split_listing(sizes)
        return Listing(
            visible={bundle: sizes[manifest_name(bundle)] for bundle in sorted(visible)}, withdrawn=withdrawn
        )

    def read(self, bundles: Mapping[str, int]) -> Iterator[Done[str, Manifest]]:
        """Read manifests in parallel, one request each, given their ids and sizes."""
        return unordered(
            lambda bundle: self.read_one(bundle, bundles[bundle]),
            tuple(bundles),
            deadline=self._store.deadline,
            doing=f"reading manifests from {self._store.url}",
        )

    def read_one(self, bundle: str, size: int) -> Manifest:
        """Read one manifest; raise `FormatError` if it is not that of the bundle under whose name it lies."""
        return self._opened(bundle, self._fetch_sealed(bundle, size))

    def read_sealed(self, bundle: str, size: int) -> bytes:
        """Read one manifest in its envelope as it is stored, once it is known to be readable."""
        sealed = self._fetch_sealed(bundle, size)
        self._opened(bundle, sealed)
        return sealed

    def deliver(self, orders: Sequence[Order]) -> Generator[Delivery]:
        """Fetch what is in bundles."""
        return deliver(self._store, orders, locate=lambda ref: self._prefix.chunk(ref.digest))

    def fetch(self, chunks: Sequence[ChunkRef]) -> Iterator[Done[ChunkRef, bytes]]:
        """Fetch chunks of any part in parallel, and give their raw content once it is proved."""
        return unordered(
            lambda ref: open_chunk(ref, self._store.read(self._prefix.chunk(ref.digest), size=ref.stored_size)),
            chunks,
            deadline=self._store.deadline,
            doing=f"downloading from {self._store.url}",
        )

    def write(self, payloads: Sequence[Payload], uploaded: Callable[[ChunkRef], None]) -> tuple[ChunkRef, ...]:
        """Compress and upload chunks; `uploaded` is told of each."""

        def upload(payload: Payload) -> ChunkRef:
            chunk = pack_chunk(payload)
            self._store.create(self._prefix.chunk(chunk.ref.digest), chunk.stored)
            return chunk.ref

        refs = []
        with closing(self._each(upload, payloads, f"uploading to {self._store.url}")) as arrivals:
            for ref in arrivals:
                refs.append(ref)
                uploaded(ref)
        return tuple(sorted(refs, key=lambda ref: ref.digest))

    def fits(self, payloads: Sequence[Payload], most: int) -> bool:
        """Tell whether chunks would take at most so many bytes in the store; nothing is written.

        To know it they are compressed, unless they are so small before that they cannot exceed it.
        """
        if 2 * sum(payload.weight for payload in payloads) <= most:  # what does not compress grows by less than that
            return True
        sizes = self._each(lambda payload: pack_chunk(payload).ref, payloads, "compressing what is to be uploaded")
        with closing(sizes) as refs:
            return all(size <= most for size in accumulate(ref.stored_size for ref in refs))

    def announce(self, manifest: Manifest) -> bool:
        """Write the manifest, which makes its bundle exist; return False if the bundle exists already."""
        return self.announce_sealed(manifest.bundle, seal(manifest))

    def announce_sealed(self, bundle: str, sealed: bytes) -> bool:
        """Write a manifest in the envelope it came in."""
        return self._store.create(self._prefix.manifest(bundle), sealed)

    def _each(
        self, work: Callable[[Payload], ChunkRef], payloads: Sequence[Payload], doing: str
    ) -> Generator[ChunkRef]:
        """Do something with all payloads in parallel, as many at once as the window holds."""
        window = Window(UPLOAD_WINDOW)
        arrivals = unordered(
            work,
            payloads,
            deadline=self._store.deadline,
            doing=doing,
            admit=lambda payload: window.acquire(payload.weight),
        )
        try:
            for done in arrivals:
                window.release(done.item.weight)
                yield done.result()
        finally:
            arrivals.close()
            window.close()

    def _fetch_sealed(self, bundle: str, size: int) -> bytes:
        if size > MAX_MANIFEST_SIZE:
            msg = f"manifest of {size} bytes, at most {MAX_MANIFEST_SIZE} are read"
            raise FormatError(msg, path=bundle)
        return self._store.read(self._prefix.manifest(bundle), size=size)

    def _opened(self, bundle: str, sealed: bytes) -> Manifest:
        manifest = unseal(sealed)
        if manifest.bundle != bundle:
            msg = f"manifest of bundle {manifest.bundle!r:.40} under the name of {bundle}"
            raise FormatError(msg, path="manifest.bundle")
        return manifest
