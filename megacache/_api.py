"""The public verbs: a thin face of `Cache`."""

from collections.abc import Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any, Literal, overload

from megacache import _compiler
from megacache._cache import PUBLISH_TIMEOUT, WARM_TIMEOUT, Cache
from megacache._environment import Environment
from megacache._results import ProgressCallback, PublishResult, WarmResult


class Synchronized:
    """What `synchronized` hands to its block."""

    def __init__(self, warmed: WarmResult) -> None:
        self.warmed = warmed
        """The result of the warm start."""
        self.published: PublishResult | None = None
        """The result of the publication, once the block has ended."""


def warm(
    url: str | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    timeout: float = WARM_TIMEOUT,
    strict: bool = False,
    progress: ProgressCallback | None = None,
) -> WarmResult:
    """Load what was published for this environment; see `Cache` and `Cache.warm`."""
    return Cache(url, storage_options=storage_options, strict=strict, progress=progress).warm(timeout=timeout)


@overload
def publish(
    url: str | None = ...,
    *,
    storage_options: Mapping[str, Any] | None = ...,
    timeout: float = ...,
    strict: bool = ...,
    wait: Literal[True] = ...,
    labels: Mapping[str, str] | None = ...,
    progress: ProgressCallback | None = ...,
) -> PublishResult: ...
@overload
def publish(
    url: str | None = ...,
    *,
    storage_options: Mapping[str, Any] | None = ...,
    timeout: float = ...,
    strict: bool = ...,
    wait: Literal[False],
    labels: Mapping[str, str] | None = ...,
    progress: ProgressCallback | None = ...,
) -> Future[PublishResult]: ...
def publish(
    url: str | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    timeout: float = PUBLISH_TIMEOUT,
    strict: bool = False,
    wait: bool = True,
    labels: Mapping[str, str] | None = None,
    progress: ProgressCallback | None = None,
) -> PublishResult | Future[PublishResult]:
    """Upload what this process compiled and the store does not hold; see `Cache` and `Cache.publish`."""
    cache = Cache(url, storage_options=storage_options, strict=strict, progress=progress)
    if wait:
        return cache.publish(timeout=timeout, labels=labels)
    return cache.publish(timeout=timeout, wait=False, labels=labels)


@contextmanager
def synchronized(
    url: str | None = None,
    *,
    storage_options: Mapping[str, Any] | None = None,
    warm_timeout: float = WARM_TIMEOUT,
    publish_timeout: float = PUBLISH_TIMEOUT,
    publish_on_error: bool = False,
    strict: bool = False,
    labels: Mapping[str, str] | None = None,
    progress: ProgressCallback | None = None,
) -> Iterator[Synchronized]:
    """Warm, run the block, publish.

    If the block raises, its exception goes on and nothing is published, unless `publish_on_error` says otherwise.
    """
    cache = Cache(url, storage_options=storage_options, strict=strict, progress=progress)
    sync = Synchronized(cache.warm(timeout=warm_timeout))
    try:
        yield sync
    except BaseException:
        if publish_on_error:
            sync.published = cache.publish(timeout=publish_timeout, labels=labels)
        raise
    sync.published = cache.publish(timeout=publish_timeout, labels=labels)


def environment() -> Environment:
    """Show the facts that decide which bundles fit this process, and those that are recorded beside them.

    Raises:
        CompilerError: PyTorch cannot be imported or asked.
    """
    return _compiler.current_environment()
