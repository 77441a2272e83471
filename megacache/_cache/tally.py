"""What has become of the bundles of a warm start, and how it ends."""

from collections import Counter
from collections.abc import Sequence

from megacache import _compiler
from megacache._bundle import ArtifactRef, Manifest
from megacache._cache.results import WarmStatus
from megacache.errors import BundleError, MegacacheError, MissingError, UnsupportedFormatError, UntrustedError


class Tally:
    """The bundles so far."""

    def __init__(self) -> None:
        self.loaded: list[str] = []
        self.seen: set[str] = set()
        self.failed: set[str] = set()
        self.incomplete = False
        self.faults: list[tuple[MegacacheError, str]] = []
        """Each with what is said of it."""
        self.left_out: list[str] = []
        self.artifacts = _compiler.Loaded()
        self.unmet: dict[str, dict[ArtifactRef, frozenset[str]]] = {}
        """Artifacts that call custom operators which are defined otherwise here, by bundle, with the operators."""
        self.manifests: list[Manifest] = []
        """Of the bundles that were loaded."""
        self.bytes_wanted = 0
        self.bytes_stored = 0
        self.bytes_raw = 0
        self.sources: Counter[str] = Counter()
        """Bytes as stored, by what gave them."""

    def leave_out(self, bundle: str, why: str) -> str:
        """Note that a bundle is not loaded, and give the sentence that says so."""
        message = f"bundle {bundle} was left out: {why}"
        self.left_out.append(message)
        return message

    def fail(self, bundle: str, fault: MegacacheError | None) -> None:
        """Note that a bundle cannot be loaded."""
        message = self.leave_out(bundle, str(fault))
        if isinstance(fault, MissingError):
            self.incomplete = True
        # What a newer megacache has published is a miss, and not a fault.
        elif fault is not None and not isinstance(fault, UnsupportedFormatError):
            self.faults.append((fault, message if isinstance(fault, BundleError) else str(fault)))
        self.failed.add(bundle)

    def outcome(self, warnings: Sequence[str]) -> tuple[WarmStatus, MegacacheError | None, str]:
        """Give the status, the fault if there is one, and the reason; `warnings` are of compiled files."""
        if self.loaded:
            return WarmStatus.LOADED, None, ""
        if self.faults:
            # Of several faults, somebody should look first at what is not trusted.
            error, reason = min(self.faults, key=lambda one: not isinstance(one[0], UntrustedError))
            return status_of(error), error, reason
        return WarmStatus.MISS, None, "; ".join(self.left_out or (warnings if self.seen else ()))


def status_of(fault: MegacacheError) -> WarmStatus:
    """Say how a warm start that loaded nothing has ended."""
    return WarmStatus.UNTRUSTED if isinstance(fault, UntrustedError) else WarmStatus.UNAVAILABLE
