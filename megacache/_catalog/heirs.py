"""Find where the content of a bundle is in service as well, after it was merged into others."""

from megacache._bundle import SUPERSEDED, Digest, Manifest
from megacache._catalog.catalog import Catalog
from megacache._catalog.inventory import Holding
from megacache._catalog.limits import affordable_manifests
from megacache._store import Store
from megacache.errors import BundleError, MissingError


def heirs(store: Store, holding: Holding, bundle: str) -> tuple[str, ...]:
    """Name the visible bundles that hold something of a bundle which is or was just being superseded.

    One more LIST shows the bundles that were announced after `holding` was listed. Manifests are read only if there are
    any, or if the bundle is superseded.
    """
    catalog = Catalog(store, holding.prefix)
    visible = catalog.list().visible
    superseded = SUPERSEDED in holding.marks.get(bundle, ())
    left = {one: size for one, size in visible.items() if superseded or one not in holding.manifests}
    if not left:
        return ()
    try:
        content = _content(catalog.read_one(bundle, holding.manifests[bundle]))
    except (BundleError, MissingError):
        return ()
    found = [done.value for done in catalog.read(affordable_manifests(left)) if done.value is not None]
    return tuple(sorted(one.bundle for one in found if content & _content(one)))


def _content(manifest: Manifest) -> set[Digest]:
    return {ref.digest for ref in manifest.artifacts} | {file.digest for file in manifest.files.index}
