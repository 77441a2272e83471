"""What a warm start leaves out because processes that had loaded it have died."""

from collections.abc import Iterator, Mapping

from megacache._cache.crash_guard.markers import Markers, Suspect
from megacache._cache.crash_guard.store_markers import StoreMarkers
from megacache._catalog import Catalog, Listing
from megacache.errors import StoreError

_SUSPECTED = (
    "a process that had loaded it died as it compiled or made its first calls; it is left out for an hour "
    "(`megacache quarantine` takes it from everyone)"
)
_UNCERTAIN = (
    "it is not quarantined: the process had loaded others as well, or did not tell megacache why it died; "
    "`megacache quarantine` takes it from everyone once you know that it is to blame"
)


class Suspicions:
    """The bundles that are suspected, by the markers beside the local cache and, where they are kept, in the store."""

    def __init__(self, catalog: Catalog, local: Markers, stored: StoreMarkers | None, *, quarantine: bool) -> None:
        """Look at the markers beside the local cache; with `quarantine`, take from everyone what is known to kill."""
        self._catalog = catalog
        self._stored = stored
        self._quarantine = quarantine
        self._suspects: Mapping[str, Suspect] = local.suspects()

    def __contains__(self, bundle: str) -> bool:
        """Tell whether a bundle is suspected."""
        return bundle in self._suspects

    def hear(self, listing: Listing) -> None:
        """Add what the markers in the store tell."""
        if self._stored is not None:
            self._suspects = {**self._stored.suspects(listing.starts), **self._suspects}

    def consequences(self, bundle: str) -> Iterator[str]:
        """Draw them for a bundle that is suspected, and say what they are."""
        yield _SUSPECTED
        if not self._quarantine:
            return
        if not self._suspects[bundle].alone:
            yield _UNCERTAIN
            return
        try:
            self._catalog.quarantine(bundle)
        except StoreError as error:
            yield f"it is not quarantined: {error}"
