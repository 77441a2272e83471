"""Take out of PyTorch's cache what must not be read from it again."""

from megacache import _compiler
from megacache._catalog import Catalog, Listing, affordable_manifests
from megacache._markers import Markers
from megacache._restore import Restoration


def clear_suspects(markers: Markers, restoration: Restoration) -> None:
    """Clear what a process had loaded from bundles when it died."""
    for suspect in markers.to_clear():
        _compiler.forget(suspect.artifacts)
        restoration.remove(suspect.files)


def clear_quarantined(listing: Listing, catalog: Catalog, markers: Markers, restoration: Restoration) -> None:
    """Clear, once, what an earlier start may have loaded from bundles that were withdrawn since.

    What has been compiled here in their place since then stays.
    """
    left = {bundle: size for bundle, size in listing.quarantined.items() if not markers.is_rid_of(bundle)}
    for done in catalog.read(affordable_manifests(left)):
        if done.value is not None:
            _compiler.forget_exactly(done.value.artifacts)
            restoration.remove_exactly(done.value.files.index)
            markers.note_riddance(done.item)
