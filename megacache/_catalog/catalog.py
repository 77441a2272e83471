"""The bundles of one environment in a store: list, read, write."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import replace
from itertools import accumulate
from typing import Any, Self

from megacache import _trust
from megacache._bundle import (
    MAX_MANIFEST_SIZE,
    MAX_SIGNATURE_SIZE,
    PINNED,
    SUPERSEDED,
    ChunkRef,
    Envelope,
    Environment,
    EnvironmentPrefix,
    Manifest,
    Payload,
    Signature,
    environment_prefix,
    open_chunk,
    open_envelope,
    pack_chunk,
    parse_manifest,
    parse_signatures,
    seal,
    unseal,
)
from megacache._catalog.delivery import Delivery, Order, Value, deliver
from megacache._catalog.listing import Listing
from megacache._catalog.node_cache import NodeCache
from megacache._runtime import Done, call, unordered, within_window
from megacache._store import Store
from megacache._trust import TrustPolicy
from megacache.errors import BundleError, FormatError, MissingError, UntrustedError

NO_SIGNATURES: Mapping[tuple[str, str], int] = {}
_NOWHERE_ELSE: Mapping[str, EnvironmentPrefix] = {}
_OLD = 3_600.0
"""Seconds after which a chunk may no longer be part of a publication that goes on."""
UPLOAD_WINDOW = 64 << 20
"""Bytes of content that are being compressed and uploaded at once, at most."""
_UPLOADS = 2
"""Chunks that are compressed and uploaded at once: nobody waits for it, and each takes twice its size in memory."""


class Catalog:
    """The bundles for one environment."""

    def __init__(
        self,
        store: Store,
        prefix: EnvironmentPrefix,
        policy: TrustPolicy | None = None,
        signatures: Mapping[tuple[str, str], int] = NO_SIGNATURES,
        *,
        wider: EnvironmentPrefix | None = None,
        elsewhere: Mapping[str, EnvironmentPrefix] = _NOWHERE_ELSE,
    ) -> None:
        """Look at one environment, and read what lies under `wider` with it.

        With a policy, manifests that it does not accept are not read: each gives an `UntrustedError`. `signatures` are
        those that were added later, and `elsewhere` the bundles under `wider`, as a listing tells them; `knowing` adds
        both.
        """
        self._store = store
        self.prefix = prefix
        """Where they lie."""
        self._policy = policy
        self._signatures = signatures
        self._wider = wider
        self._elsewhere = elsewhere

    @classmethod
    def of(cls, store: Store, environment: Environment, policy: TrustPolicy | None = None) -> Self:
        """Make the catalog of all that serves in an environment; it writes where the environment's own bundles lie."""
        own, *wider = (environment_prefix(one.device, one.fingerprint) for one in environment.readable)
        return cls(store, own, policy, wider=next(iter(wider), None))

    def list(self) -> Listing:
        """List the bundles; read them by the catalog that `knowing` gives."""
        return Listing.of(self.names())

    def names(self) -> Mapping[str, int]:
        """Give the size of each object that lies where bundles are, by name; before those elsewhere stands where."""
        if self._wider is None:
            return self._names(self.prefix)
        both = unordered(
            self._names,
            (self.prefix, self._wider),
            deadline=self._store.deadline,
            doing=f"listing {self._store.url}",
        )
        found = {done.item: done.result() for done in both}
        return {**found[self.prefix], **{f"{self._wider.path}/{name}": n for name, n in found[self._wider].items()}}

    def _names(self, prefix: EnvironmentPrefix) -> Mapping[str, int]:
        # What somebody has put into a folder below is not of any bundle.
        return {entry.key: entry.size for entry in self._store.list(prefix.bundles) if "/" not in entry.key}

    def knowing(self, listing: Listing) -> Self:
        """Give the same catalog, which reads manifests with the signatures that a listing tells of."""
        return type(self)(
            self._store, self.prefix, self._policy, listing.signatures, wider=self._wider, elsewhere=listing.elsewhere
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
        return self.read_both(bundle, size)[0]

    def read_sealed(self, bundle: str, size: int) -> bytes:
        """Read one manifest in its envelope as it is stored, once it is known to be readable."""
        return self.read_both(bundle, size)[1]

    def read_both(self, bundle: str, size: int) -> tuple[Manifest, bytes]:
        """Read one manifest, and give its envelope as well."""
        sealed = self._fetch_sealed(bundle, size)
        return self._opened(bundle, sealed), sealed

    def read_with_signatures(self, bundle: str, size: int) -> tuple[Manifest, Sequence[Signature]]:
        """Read one manifest, and the signatures in its envelope, which nobody has verified."""
        sealed = self.read_sealed(bundle, size)
        return unseal(sealed), open_envelope(sealed).signatures

    def deliver(self, orders: Sequence[Order], node: NodeCache | None = None) -> Generator[Delivery]:
        """Fetch what is in bundles, from the node itself where that is to have it."""
        return deliver(self._store, orders, locate=self._chunk, ask=self._ask, node=node)

    def fetch(self, chunks: Sequence[tuple[str, ChunkRef]]) -> Generator[Done[tuple[str, ChunkRef], bytes]]:
        """Fetch chunks of any part of bundles in parallel, and give their raw content once it is proved."""

        def read(one: tuple[str, ChunkRef]) -> bytes:
            bundle, ref = one
            key = self._chunk(bundle, ref)
            return self._ask(bundle, key, lambda store: open_chunk(ref, store.read(key, size=ref.stored_size)))

        return within_window(
            read,
            chunks,
            weight=lambda one: one[1].stored_size + one[1].raw_size,
            deadline=self._store.deadline,
            doing=f"downloading from {self._store.url}",
        )

    def write(self, payloads: Sequence[Payload], uploaded: Callable[[ChunkRef], None]) -> tuple[ChunkRef, ...]:
        """Compress and upload chunks; `uploaded` is told of each.

        An old chunk that is there already may be of no bundle, and about to be deleted: another one is written.
        """

        def upload(payload: Payload) -> ChunkRef:
            for other_name in (False, True):
                chunk = pack_chunk(payload, other_name=other_name)
                key = self.prefix.chunk(chunk.ref.digest)
                if self._store.create(key, chunk.stored) or self._is_young(key):
                    break
            return chunk.ref

        refs = []
        with closing(self._each(upload, payloads, f"uploading to {self._store.url}")) as arrivals:
            for done in arrivals:
                ref = done.result()
                refs.append(ref)
                uploaded(ref)
        # Uploads end in any order; the same chunks shall make the same manifest.
        return tuple(sorted(refs, key=lambda ref: ref.digest))

    def fits(self, payloads: Sequence[Payload], most: int) -> bool:
        """Tell whether chunks would take at most so many bytes in the store; nothing is written.

        To know it they are compressed, unless they are so small before that they cannot exceed it.
        """
        if 2 * sum(payload.weight for payload in payloads) <= most:  # what does not compress grows by less than that
            return True
        sizes = self._each(lambda payload: pack_chunk(payload).ref, payloads, "compressing what is to be uploaded")
        with closing(sizes) as packed:
            return all(size <= most for size in accumulate(done.result().stored_size for done in packed))

    def announce(self, manifest: Manifest, signer: Any = None) -> bool:
        """Write the manifest, which makes its bundle exist; return False if the bundle exists already."""
        sign = None if signer is None else (lambda payload: self.sign(signer, payload))
        return self.announce_sealed(manifest.bundle, seal(manifest, sign))

    def sign(self, signer: Any, payload: bytes) -> Signature:
        """Sign a payload for this place; raise `DeadlineError` if the signer, or its key service, takes too long."""
        scope, deadline = self._store.scope, self._store.deadline
        return call(lambda: _trust.sign(signer, payload, scope), deadline=deadline, doing="signing")

    def announce_sealed(self, bundle: str, sealed: bytes) -> bool:
        """Write a manifest in the envelope it came in."""
        return self._store.create(self.prefix.manifest(bundle), sealed)

    def mark(self, bundle: str, mark: str) -> bool:
        """Mark a bundle; return False if it has the mark already."""
        return self._store.create(self.prefix.mark(bundle, mark), b"\n")  # several stores have no empty objects

    def unmark(self, bundle: str, mark: str) -> None:
        """Take a mark away."""
        self._store.delete(self.prefix.mark(bundle, mark))

    def unpin(self, bundle: str) -> None:
        """Let a bundle go; it is in service until it is superseded anew, which is when its grace has to begin."""
        self.unmark(bundle, SUPERSEDED)
        self.unmark(bundle, PINNED)

    def _ask(self, bundle: str, key: str, do: Callable[[Store], Value]) -> Value:
        """Do something with the store that holds an object."""
        del bundle, key
        return do(self._store)

    def _is_young(self, key: str) -> bool:
        age = self._store.age(key)
        return age is not None and age < _OLD

    def _each(
        self, work: Callable[[Payload], ChunkRef], payloads: Sequence[Payload], doing: str
    ) -> Generator[Done[Payload, ChunkRef]]:
        """Work on all payloads in parallel, as many at once as the window holds."""
        return within_window(
            work,
            payloads,
            weight=lambda payload: payload.weight,
            size=UPLOAD_WINDOW,
            workers=_UPLOADS,
            deadline=self._store.deadline,
            doing=doing,
        )

    def _fetch_sealed(self, bundle: str, size: int) -> bytes:
        if size > MAX_MANIFEST_SIZE:
            msg = f"the manifest has {size} bytes, and at most {MAX_MANIFEST_SIZE} are read"
            raise FormatError(msg, path=bundle)
        return self._store.read(self.place(bundle).manifest(bundle), size=size)

    def place(self, bundle: str) -> EnvironmentPrefix:
        return self._elsewhere.get(bundle, self.prefix)

    def _chunk(self, bundle: str, ref: ChunkRef) -> str:
        return self.place(bundle).chunk(ref.digest)

    def _opened(self, bundle: str, sealed: bytes) -> Manifest:
        envelope = open_envelope(sealed)
        if self._policy is not None:
            self._policy.check(self._with_added(bundle, envelope), self._store.scope)
        manifest = parse_manifest(envelope.payload)
        if manifest.bundle != bundle:
            msg = f"the manifest of bundle {manifest.bundle!r:.40} lies under the name of {bundle}"
            raise self._misplaced(msg, "manifest.bundle")
        place = environment_prefix(manifest.environment.device, manifest.environment.fingerprint)
        # Without a policy, a warm start compares the environments, and says which facts differ.
        if self._policy is not None and place != self.place(bundle):
            msg = f"the manifest of {place.path} lies under {self.place(bundle).path}"
            raise self._misplaced(msg, "manifest.environment")
        return manifest

    def _misplaced(self, message: str, path: str) -> BundleError:
        """Make the error for a manifest that lies where it was not written: with a policy it is a replay."""
        if self._policy is None:
            return FormatError(message, path=path)
        return UntrustedError(f"{path}: {message}", hint="find out who put it there")

    def _with_added(self, bundle: str, envelope: Envelope) -> Envelope:
        """Add the signatures that lie beside a manifest, of the keys that count."""
        tags = self._policy.tags(self._store.scope, envelope.payload) if self._policy else frozenset()
        found = list(envelope.signatures)
        for (signed, tag), size in self._signatures.items():
            if signed == bundle and tag in tags and size <= MAX_SIGNATURE_SIZE:
                # One that is damaged or gone counts for nothing: the others may be enough.
                with suppress(FormatError, MissingError):
                    found += parse_signatures(self._store.read(self.place(bundle).signature(bundle, tag), size=size))
        return replace(envelope, signatures=tuple(found))
