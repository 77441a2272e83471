"""Put all artifacts of environments that one host reads into one blob that PyTorch loads without megacache."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import chain

from megacache._bundle import REPLACED_KINDS, Artifact, build_blob, identify_artifact, parents_first, parse_blob
from megacache._catalog.catalog import Catalog
from megacache._catalog.delivery import Order
from megacache._catalog.inventory import Holding
from megacache._runtime import Progress, ProgressCallback
from megacache._store import Store
from megacache._trust import TrustPolicy
from megacache.errors import MegacacheError


@dataclass(frozen=True, slots=True, kw_only=True)
class Exported:
    """A blob as `torch.compiler.load_cache_artifacts` takes it."""

    blob: bytes = field(repr=False)
    artifacts: Mapping[str, int]
    """Artifacts in it, by kind."""
    bundles: tuple[str, ...]
    """Ids of the bundles that they come from."""
    failed: tuple[tuple[str, MegacacheError], ...]
    """Ids of bundles that could not be used, each with its fault."""
    files: int
    """Compiled files in those bundles: a blob cannot hold them."""


def export_blob(
    store: Store, holdings: Sequence[Holding], progress: ProgressCallback, policy: TrustPolicy | None = None
) -> Exported:
    """Collect the artifacts of all visible bundles; each variant once, and of some kinds only the last one of a key."""
    failed: list[tuple[str, MegacacheError]] = []
    wanted: list[tuple[Catalog, list[Order]]] = []
    for holding in holdings:
        catalog = Catalog(store, holding.prefix, policy, holding.signatures)
        manifests = []
        for done in catalog.read(holding.visible):
            if done.value is None:
                failed += [(done.item, done.fault)] if done.fault else []
            else:
                manifests.append(done.value)
        wanted.append((catalog, [Order(manifest=manifest, files=False) for manifest in parents_first(manifests)]))
    total, moved = sum(ref.stored_size for _, orders in wanted for order in orders for ref in order.chunks), 0
    found: dict[tuple[object, ...], Artifact] = {}
    used = []
    for delivery in chain.from_iterable(catalog.deliver(orders) for catalog, orders in wanted):
        if delivery.fault is not None:
            failed.append((delivery.manifest.bundle, delivery.fault))
            continue
        for unpacked in delivery.contents:
            moved += unpacked.ref.stored_size
            progress(Progress(stage="download", done=moved, total=total))
            found.update((_slot(artifact), artifact) for artifact in parse_blob(unpacked.blob))
        if delivery.last:
            used.append(delivery.manifest)
    return Exported(
        blob=build_blob(found.values()),
        artifacts=Counter(artifact.kind for artifact in found.values()),
        bundles=tuple(manifest.bundle for manifest in used),
        failed=tuple(failed),
        files=sum(len(manifest.files.index) for manifest in used),
    )


def _slot(artifact: Artifact) -> tuple[object, ...]:
    """Give the place that an artifact has in PyTorch's caches: a later one takes it from an earlier one."""
    if artifact.kind in REPLACED_KINDS:
        return artifact.kind, artifact.key
    return artifact.kind, artifact.key, identify_artifact(artifact).digest
