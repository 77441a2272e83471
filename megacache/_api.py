"""The public verbs: a thin face of `Cache`."""

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Literal, overload

from megacache import _compiler
from megacache._bundle import Environment
from megacache._cache import (
    EXPLAIN_TIMEOUT,
    PUBLISH_TIMEOUT,
    WARM_TIMEOUT,
    Cache,
    Explanation,
    Prefetch,
    PublishResult,
    Receipt,
    WarmResult,
    release_leases,
    take_receipt,
)
from megacache._catalog import WARM_MAX_BYTES
from megacache._runtime import ProgressCallback
from megacache._settings import Url
from megacache._trust import KeySource
from megacache.errors import MegacacheError


class Synchronized:
    """What `synchronized` hands to its block."""

    def __init__(self, warmed: WarmResult) -> None:
        self.warmed = warmed
        """The result of the warm start."""
        self.published: PublishResult | None = None
        """The result of the publication, once the block has ended."""
        self.receipt: Receipt | None = None
        """What the warm start was worth, once the block has ended."""


def warm(
    url: Url | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    timeout: float = WARM_TIMEOUT,
    files: bool = True,
    strict: bool = False,
    progress: ProgressCallback | None = None,
    max_bytes: int = WARM_MAX_BYTES,
    wait: float = 0.0,
    trusted_keys: Iterable[KeySource] | None = None,
    trust_threshold: int | None = None,
    folders: _compiler.Folders | None = None,
) -> WarmResult:
    """Load what was published for this environment into PyTorch's caches; call it before the first compilation.

    The arguments are those of `Cache` and `Cache.warm`: `timeout` in seconds, `max_bytes` in bytes before compression,
    `wait` the seconds to wait for another worker that compiles, 0 if for none. Returns a result in any case; raises a
    `MegacacheError` only if `strict`.
    """
    cache = Cache(
        url,
        storage_options=storage_options,
        files=files,
        strict=strict,
        progress=progress,
        trusted_keys=trusted_keys,
        trust_threshold=trust_threshold,
        folders=folders,
    )
    return cache.warm(timeout=timeout, max_bytes=max_bytes, wait=wait)


def prefetch(
    url: Url | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    timeout: float = WARM_TIMEOUT,
    files: bool = True,
    strict: bool = False,
    progress: ProgressCallback | None = None,
    max_bytes: int = WARM_MAX_BYTES,
    wait: float = 0.0,
    trusted_keys: Iterable[KeySource] | None = None,
    trust_threshold: int | None = None,
    folders: _compiler.Folders | None = None,
) -> Prefetch:
    """Begin a warm start, and let its download go on beside what the program does next, such as loading weights.

    The arguments are those of `Cache` and `Cache.prefetch`. PyTorch's caches are filled before the first compilation,
    or by `result()` of what is returned, which gives the result of the warm start.
    """
    cache = Cache(
        url,
        storage_options=storage_options,
        files=files,
        strict=strict,
        progress=progress,
        trusted_keys=trusted_keys,
        trust_threshold=trust_threshold,
        folders=folders,
    )
    return cache.prefetch(timeout=timeout, max_bytes=max_bytes, wait=wait)


@overload
def publish(
    url: Url | None = ...,
    *,
    storage_options: Mapping[str, Any] | None = ...,
    timeout: float = ...,
    files: bool = ...,
    strict: bool = ...,
    wait: Literal[True] = ...,
    labels: Mapping[str, str] | None = ...,
    compact_above: int | None = ...,
    progress: ProgressCallback | None = ...,
    trusted_keys: Iterable[KeySource] | None = ...,
    trust_threshold: int | None = ...,
    sign_with: Any = ...,
    folders: _compiler.Folders | None = ...,
) -> PublishResult: ...
@overload
def publish(
    url: Url | None = ...,
    *,
    storage_options: Mapping[str, Any] | None = ...,
    timeout: float = ...,
    files: bool = ...,
    strict: bool = ...,
    wait: Literal[False],
    labels: Mapping[str, str] | None = ...,
    compact_above: int | None = ...,
    progress: ProgressCallback | None = ...,
    trusted_keys: Iterable[KeySource] | None = ...,
    trust_threshold: int | None = ...,
    sign_with: Any = ...,
    folders: _compiler.Folders | None = ...,
) -> Future[PublishResult]: ...
def publish(
    url: Url | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    timeout: float = PUBLISH_TIMEOUT,
    files: bool = True,
    strict: bool = False,
    wait: bool = True,
    labels: Mapping[str, str] | None = None,
    compact_above: int | None = None,
    progress: ProgressCallback | None = None,
    trusted_keys: Iterable[KeySource] | None = None,
    trust_threshold: int | None = None,
    sign_with: Any = None,
    folders: _compiler.Folders | None = None,
) -> PublishResult | Future[PublishResult]:
    """Upload what this process compiled and the store does not hold; call it after the model has run.

    The arguments are those of `Cache` and `Cache.publish`; `timeout` is in seconds. Returns a result, or a future of
    one if not `wait`, and raises a `MegacacheError` only if `strict`.
    """
    cache = Cache(
        url,
        storage_options=storage_options,
        files=files,
        strict=strict,
        progress=progress,
        compact_above=compact_above,
        trusted_keys=trusted_keys,
        trust_threshold=trust_threshold,
        sign_with=sign_with,
        folders=folders,
    )
    if wait:
        return cache.publish(timeout=timeout, labels=labels)
    return cache.publish(timeout=timeout, wait=False, labels=labels)


@contextmanager
def synchronized(
    url: Url | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    warm_timeout: float = WARM_TIMEOUT,
    publish_timeout: float = PUBLISH_TIMEOUT,
    wait: float = 0.0,
    publish_on_error: bool = False,
    files: bool = True,
    strict: bool = False,
    labels: Mapping[str, str] | None = None,
    compact_above: int | None = None,
    progress: ProgressCallback | None = None,
    trusted_keys: Iterable[KeySource] | None = None,
    trust_threshold: int | None = None,
    sign_with: Any = None,
    folders: _compiler.Folders | None = None,
) -> Iterator[Synchronized]:
    """Warm, run the block, publish.

    Both timeouts are in seconds, and so is `wait`, which is that of `Cache.warm`. If the block raises, its exception
    goes on and nothing is published, unless `publish_on_error` says otherwise. Faults raise a `MegacacheError` only if
    `strict`.
    """
    cache = Cache(
        url,
        storage_options=storage_options,
        files=files,
        strict=strict,
        progress=progress,
        compact_above=compact_above,
        trusted_keys=trusted_keys,
        trust_threshold=trust_threshold,
        sign_with=sign_with,
        folders=folders,
    )
    sync = Synchronized(cache.warm(timeout=warm_timeout, wait=wait))
    try:
        try:
            yield sync
        finally:
            sync.receipt = take_receipt()
    except BaseException:
        if publish_on_error:
            with suppress(MegacacheError):  # the block's own exception goes on; the fault has been logged
                sync.published = cache.publish(timeout=publish_timeout, labels=labels)
        release_leases()
        raise
    sync.published = cache.publish(timeout=publish_timeout, labels=labels)


def receipt() -> Receipt:
    """Tell what the warm starts of this process were worth so far; take it after the model has run.

    It takes no URL and no other argument, for what PyTorch counts it counts for the process as a whole, whichever cache
    a graph came from. Two receipts tell, by their difference, what happened between them. It never raises, and changes
    nothing; what PyTorch does not tell is None.

    What it cannot know: whether a graph that hit came from a warm start or lay in the cache folder before; why a graph
    was bypassed before the first warm start; what was counted before somebody cleared PyTorch's counters; what other
    processes did. A forked child begins with the counts of its parent.
    """
    return take_receipt()


def explain(
    url: Url | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    timeout: float = EXPLAIN_TIMEOUT,
    strict: bool = False,
    trusted_keys: Iterable[KeySource] | None = None,
    trust_threshold: int | None = None,
) -> Explanation:
    """Say why what this process compiled was not found in the store; call it after the model has run.

    The arguments are those of `Cache` and `Cache.explain`; `timeout` is in seconds. Returns an explanation in any
    case, and raises a `MegacacheError` only if `strict`.
    """
    cache = Cache(
        url,
        storage_options=storage_options,
        strict=strict,
        trusted_keys=trusted_keys,
        trust_threshold=trust_threshold,
    )
    return cache.explain(timeout=timeout)


def environment() -> Environment:
    """Show the facts that decide which bundles fit this process, and those that are recorded beside them.

    Raises:
        CompilerError: PyTorch cannot be imported or asked.
    """
    return _compiler.current_environment()
