"""What has become of the bundles of a warm start, and how it ends."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from megacache import _compiler
from megacache._bundle import ArtifactRef, Manifest
from megacache._cache.results import WarmStatus
from megacache.errors import BundleError, MegacacheError, MissingError, UnsupportedFormatError, UntrustedError


@dataclass(slots=True, kw_only=True)
class Tally:
    """The bundles so far."""

    loaded: list[str] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)
    failed: set[str] = field(default_factory=set)
    incomplete: bool = False
    faults: list[tuple[MegacacheError, str]] = field(default_factory=list)
    """Each with what is said of it."""
    left_out: list[str] = field(default_factory=list)
    artifacts: _compiler.Loaded = field(default_factory=_compiler.Loaded)
    unmet: dict[str, dict[ArtifactRef, frozenset[str]]] = field(default_factory=dict)
    """Artifacts that call custom operators which are defined otherwise here, by bundle, with the operators."""
    manifests: list[Manifest] = field(default_factory=list)
    """Of the bundles that were loaded."""
    bytes_wanted: int = 0
    bytes_stored: int = 0
    bytes_raw: int = 0
    sources: Counter[str] = field(default_factory=Counter)
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
