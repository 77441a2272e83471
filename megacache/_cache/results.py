"""What `warm` and `publish` answer."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Self

from megacache._cache.receipt import Receipt
from megacache._runtime import counted
from megacache.errors import MegacacheError


class WarmStatus(StrEnum):
    """How a warm start ended; no status but `LOADED` changed anything."""

    LOADED = "loaded"
    """Artifacts were handed to PyTorch; whether the compiler then hits is a later fact."""
    MISS = "miss"
    """Nothing is published for this environment; the reason names the facts that differ from the nearest one."""
    DISABLED = "disabled"
    """Switched off, here or in PyTorch."""
    UNTRUSTED = "untrusted"
    """What was there was refused: it lacks a required signature, or holds what PyTorch never writes."""
    UNAVAILABLE = "unavailable"
    """The store, the data or PyTorch failed, or time ran out, here or for another rank of the same job."""


class PublishStatus(StrEnum):
    """How a publication ended."""

    PUBLISHED = "published"
    """A new bundle is in the store."""
    UNCHANGED = "unchanged"
    """Nothing was compiled since this process last warmed or published; the store was not asked."""
    COVERED = "covered"
    """Other processes had published an artifact under every key and guard."""
    DUPLICATE = "duplicate"
    """Another process published the same bundle a moment earlier."""
    EMPTY = "empty"
    """PyTorch has recorded nothing that can be published."""
    TOO_LARGE = "too_large"
    """What is new exceeds the `max_publish_bytes` of the `Cache`; nothing was uploaded."""
    READ_ONLY = "read_only"
    """Writing is switched off, the store refused it, or nobody would load it for lack of a trusted signature."""
    DISABLED = "disabled"
    """Switched off, here or in PyTorch."""
    UNAVAILABLE = "unavailable"
    """The store, the data or PyTorch failed, or time ran out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Result:
    status: StrEnum
    """How it ended."""
    url: str
    """The cache, without any password that its URL held."""
    reason: str = ""
    """Why the status is what it is, for people; empty if that is plain."""
    warnings: tuple[str, ...] = ()
    """What did not decide the status, but matters."""
    artifacts: Mapping[str, int] = field(default_factory=dict)
    """Artifacts loaded or published, by kind."""
    files: int = 0
    """Compiled files put in place or published."""
    bytes_files: int = 0
    """Size of those files."""
    bytes_stored: int = 0
    """Size in the store of the chunks of both."""
    bytes_raw: int = 0
    """Size of their chunks before compression."""
    seconds: Mapping[str, float] = field(default_factory=dict)
    """Time spent, by stage; stages that go on side by side take more together than the `total`."""
    error: MegacacheError | None = None
    """The fault that decided the status, if one did."""

    def __str__(self) -> str:
        found = " ".join(f"{count} {kind}" for kind, count in sorted(self.artifacts.items()))
        if self.files:
            found = " ".join(filter(None, [found, counted(self.files, "file")]))
        moved = f"{found}, {self.bytes_stored} bytes stored, {self.bytes_raw} raw" if found else self.reason
        return ": ".join(filter(None, [self.status, moved]))

    def raise_for_status(self) -> Self:
        """Raise the fault that decided the status; a miss is an outcome and raises nothing."""
        if self.error is not None:
            raise self.error
        return self


@dataclass(frozen=True, slots=True, kw_only=True)
class WarmResult(_Result):
    """What a warm start did. True if anything was loaded."""

    status: WarmStatus
    bundles: tuple[str, ...] = ()
    """Ids of the bundles that were loaded."""
    info: Any = None
    """PyTorch's own `CacheInfo` of what it loaded, or None."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """Bytes of `bytes_stored` by what gave them: the URL of a place, or `this node` for its folder of chunks."""
    differs: tuple[str, ...] = ()
    """On a miss, the facts in which the nearest published environment differs; none if nothing else is published."""

    def __bool__(self) -> bool:
        return self.status is WarmStatus.LOADED


_IN_THE_STORE = {
    PublishStatus.PUBLISHED,
    PublishStatus.UNCHANGED,
    PublishStatus.COVERED,
    PublishStatus.DUPLICATE,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishResult(_Result):
    """What a publication did. True if the store holds every key that this process compiled."""

    status: PublishStatus
    bundles: tuple[str, ...] = ()
    """Ids of the bundles that now hold what was new: files that depend on other facts than the rest have their own."""
    receipt: Receipt | None = None
    """What the warm starts of this process were worth, as of the call."""

    def __bool__(self) -> bool:
        return self.status in _IN_THE_STORE
