"""Read all that is published for an environment, and name what is damaged."""

from collections.abc import Iterator
from dataclasses import dataclass

from megacache._bundle import Digest, Environment, Manifest, environment_prefix
from megacache._catalog.catalog import Catalog
from megacache._catalog.delivery import Order
from megacache._catalog.inventory import Holding
from megacache._runtime import Progress, ProgressCallback
from megacache._store import Store
from megacache._trust import TrustPolicy
from megacache.errors import FormatError, IntegrityError, MegacacheError


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """What a bundle was found to be; it is sound if it has no fault."""

    bundle: str
    bytes_stored: int
    """Of its chunks, by its manifest."""
    faults: tuple[MegacacheError, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Verified:
    """What was found in one environment."""

    verdicts: tuple[Verdict, ...]
    """One for each bundle, those that are withdrawn among them."""
    orphans: tuple[Digest, ...]
    """Chunks that no manifest names: an interrupted publication leaves them, harmless. Empty if a manifest is bad."""


def verify(store: Store, holding: Holding, progress: ProgressCallback, policy: TrustPolicy | None = None) -> Verified:
    """Read every manifest and every chunk, and compare them with what they should be, and with who should have signed.

    Raises `StoreError` only where the store fails as a whole.
    """
    return _Verification(store, holding, progress, policy).run()


class _Verification:
    def __init__(self, store: Store, holding: Holding, progress: ProgressCallback, policy: TrustPolicy | None) -> None:
        self._catalog = Catalog(store, holding.prefix, policy, holding.signatures)
        self._holding = holding
        self._progress = progress
        self._faults: dict[str, list[MegacacheError]] = {bundle: [] for bundle in sorted(holding.manifests)}
        self._manifests: dict[str, Manifest] = {}
        self._done = 0

    def run(self) -> Verified:
        for done in self._catalog.read(self._holding.manifests):
            if done.value is None:
                self._blame(done.item, done.fault)
            else:
                self._manifests[done.item] = done.value
        # Place and sizes are known from the listing: nothing is downloaded for them.
        for manifest in self._manifests.values():
            self._check_place(manifest.bundle, manifest.environment)
            self._check_sizes(manifest)
        self._check_contents()
        self._check_other_parts()
        return Verified(verdicts=tuple(map(self._verdict, self._faults)), orphans=tuple(self._orphans()))

    def _verdict(self, bundle: str) -> Verdict:
        manifest = self._manifests.get(bundle)
        size = sum(ref.stored_size for ref in manifest.chunks) if manifest else 0
        return Verdict(bundle=bundle, bytes_stored=size, faults=tuple(self._faults[bundle]))

    def _blame(self, bundle: str, fault: MegacacheError | None) -> None:
        # The listing and the content may show the same fault.
        if fault is not None and str(fault) not in map(str, self._faults[bundle]):
            self._faults[bundle].append(fault)

    def _check_place(self, bundle: str, environment: Environment) -> None:
        place = environment_prefix(environment.device, environment.fingerprint)
        if place != self._holding.prefix:
            self._blame(bundle, FormatError(f"its environment belongs under {place.path}", path="manifest.environment"))

    def _check_sizes(self, manifest: Manifest) -> None:
        for ref in manifest.chunks:
            size = self._holding.chunks.get(ref.digest)
            if size is not None and size != ref.stored_size:
                what = f"size of chunk {ref.digest.hex[:12]}"
                self._blame(manifest.bundle, IntegrityError(what, expected=ref.stored_size, actual=size))

    def _check_contents(self) -> None:
        orders = [Order(manifest=manifest, files=True) for manifest in self._manifests.values()]
        for delivery in self._catalog.deliver(orders):
            self._blame(delivery.manifest.bundle, delivery.fault)
            self._advance(sum(unpacked.ref.stored_size for unpacked in delivery.contents))

    def _check_other_parts(self) -> None:
        """Read the chunks that no warm start reads, each once, and blame all bundles that name a bad one."""
        owners: dict[Digest, list[str]] = {}
        others = {}
        for manifest in self._manifests.values():
            read = set(Order(manifest=manifest, files=True).chunks)
            for ref in manifest.chunks:
                if ref not in read:
                    others[ref.digest] = manifest.bundle, ref
                    owners.setdefault(ref.digest, []).append(manifest.bundle)
        for done in self._catalog.fetch(tuple(others.values())):
            _, ref = done.item
            self._advance(ref.stored_size)
            for bundle in owners[ref.digest]:
                self._blame(bundle, done.fault)

    def _advance(self, size: int) -> None:
        self._done += size
        total = sum(ref.stored_size for manifest in self._manifests.values() for ref in manifest.chunks)
        self._progress(Progress(stage="verify", done=self._done, total=total))

    def _orphans(self) -> Iterator[Digest]:
        # A manifest that is bad may name any chunk.
        if len(self._manifests) < len(self._holding.manifests):
            return
        named = {ref.digest for manifest in self._manifests.values() for ref in manifest.chunks}
        yield from sorted(self._holding.chunks.keys() - named)
