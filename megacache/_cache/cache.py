"""The verbs on one cache. Faults become results here, and nowhere below; the log is told of each call."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar, overload

from megacache import _compiler
from megacache._bundle import checked_labels
from megacache._cache.crash_guard import guard_beside, install
from megacache._cache.explain import ExplainStatus, Explanation, explain
from megacache._cache.publish import Publication
from megacache._cache.receipt import Receipt
from megacache._cache.recording import take
from megacache._cache.results import PublishResult, PublishStatus, WarmResult, WarmStatus
from megacache._cache.session import Session, draw_up, enter, session
from megacache._cache.warm import Warming, status_of
from megacache._catalog import WARM_MAX_BYTES
from megacache._runtime import Deadline, ProgressCallback, Stopwatch, call, in_background, quiet
from megacache._settings import Settings
from megacache._store import Store, redacted
from megacache._trust import Keys, KeySource
from megacache.errors import MegacacheError, SettingsError

_log = logging.getLogger("megacache")
_log.addHandler(logging.NullHandler())

WARM_TIMEOUT = 60.0
PUBLISH_TIMEOUT = 300.0
EXPLAIN_TIMEOUT = 30.0
_Step = TypeVar("_Step")


class Cache:
    """One cache in a store, by the URL of its model and version."""

    def __init__(
        self,
        url: str | os.PathLike[str] | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        files: bool = True,
        strict: bool = False,
        progress: ProgressCallback | None = None,
        max_publish_bytes: int | None = None,
        trusted_keys: Iterable[KeySource] | None = None,
        trust_threshold: int | None = None,
        sign_with: Any = None,
    ) -> None:
        """Name a cache; nothing is opened before it is used.

        Args:
            url: Any URL that fsspec knows, chained ones included. None: `MEGACACHE_URL`, else a folder under the
                user's cache folder.
            storage_options: What fsspec's filesystem for that URL takes: credentials, endpoint, … Never logged.
            files: Carry compiled files as well, such as C++ kernels: PyTorch's own artifacts hold only their source.
            strict: Raise faults instead of returning them.
            progress: Called after each chunk, in the calling thread or in that of `publish(wait=False)`.
            max_publish_bytes: Publish nothing if the chunks of one publication would take more than this in the store.
            trusted_keys: Files of public keys, PEM or securesystemslib's JSON. What none of them has signed is not
                opened. None: `MEGACACHE_TRUSTED_KEYS`, and without it whoever may write to the store is trusted.
            trust_threshold: How many of these keys must have signed. None: `MEGACACHE_TRUST_THRESHOLD`, else 1.
            sign_with: What to sign publications with: the file of a private key, the URI of one in a key service, or
                a `securesystemslib.signer.Signer`. None: `MEGACACHE_SIGNING_KEY`, and without it nothing is signed.
        """
        self._url = url
        self._storage_options = storage_options
        self._files = files
        self._strict = strict
        self._progress = quiet(progress)
        self._max_publish_bytes = max_publish_bytes
        trusted = None if trusted_keys is None else tuple(trusted_keys)
        self._keys = Keys(trusted=trusted, threshold=trust_threshold, sign_with=sign_with)

    def warm(self, *, timeout: float = WARM_TIMEOUT, max_bytes: int = WARM_MAX_BYTES) -> WarmResult:
        """Load what was published for this environment into PyTorch's caches; call it before the first compilation.

        On a GPU this initialises the device, as the first compilation would: a server that forks its workers must call
        it in the workers.

        Args:
            timeout: Seconds to wait for the store, counted from when PyTorch's compiler has been imported. Loading
                counts, but a load that has begun is not cut short.
            max_bytes: How much is loaded at most, in bytes before compression; it goes to PyTorch's cache folder. The
                newest bundles that fit are loaded, each whole; a warning names the others. The default, 16 GiB, is far
                above what models need, and keeps a store that went wrong from filling disk and memory.

        Returns:
            A `WarmResult`; in every case but `loaded` the process goes on as it would have without this call.

        Raises:
            MegacacheError: Only if strict, and only for the statuses `unavailable` and `untrusted`.
        """
        clock = Stopwatch()
        try:
            result = self._warm(Deadline.after(timeout), clock, max_bytes)
        except MegacacheError as error:
            result = WarmResult(url=_shown(self._url), status=status_of(error), reason=str(error), error=error)
        result = replace(result, seconds=clock.seconds())
        enter(result)
        report("warm", result)
        return result.raise_for_status() if self._strict else result

    @overload
    def publish(
        self, *, timeout: float = ..., wait: Literal[True] = ..., labels: Mapping[str, str] | None = ...
    ) -> PublishResult: ...
    @overload
    def publish(
        self, *, timeout: float = ..., wait: Literal[False], labels: Mapping[str, str] | None = ...
    ) -> Future[PublishResult]: ...
    def publish(
        self, *, timeout: float = PUBLISH_TIMEOUT, wait: bool = True, labels: Mapping[str, str] | None = None
    ) -> PublishResult | Future[PublishResult]:
        """Upload what this process compiled and the store does not hold; call it after the model has run.

        Calling it again is right at any time: only what is new is uploaded, and with nothing new the store is not
        asked.

        Args:
            timeout: Seconds within which all must be done.
            wait: False returns a future at once, and compresses and uploads in the background. What was recorded by
                the time of the call is published. The interpreter waits for it at exit, `timeout` seconds at most.
            labels: Words of your own, kept in the manifest: a commit, a pipeline run. At most 64, each of at most
                1,000 characters.

        Returns:
            A `PublishResult`, or a future of one.

        Raises:
            MegacacheError: Only if strict, and only for faults. With `wait=False` the future raises it.
        """
        clock = Stopwatch()
        taken = self._softly(lambda: self._take(Deadline.after(timeout), labels or {}, clock))
        receipt = draw_up()
        if wait:
            return self._conclude(taken, receipt, clock)
        return in_background(lambda: self._conclude(taken, receipt, clock))

    def explain(self, *, timeout: float = EXPLAIN_TIMEOUT) -> Explanation:
        """Say why what this process compiled was not found: how it differs from the nearest that others published.

        Call it after the model has run. It changes nothing: a later publication is the same with it or without.

        Args:
            timeout: Seconds within which the store must have answered; graphs left after that are not compared.

        Returns:
            An `Explanation`, which prints as text and has `to_json()`.

        Raises:
            MegacacheError: Only if strict, and only for the status `unavailable`.
        """
        clock = Stopwatch()
        try:
            result = self._explain(Deadline.after(timeout))
        except MegacacheError as error:
            result = Explanation(
                url=_shown(self._url), status=ExplainStatus.UNAVAILABLE, reason=str(error), error=error
            )
        result = replace(result, seconds=clock.seconds()["total"])
        report_explanation(result)
        return result.raise_for_status() if self._strict else result

    def _explain(self, deadline: Deadline) -> Explanation:
        settings = Settings.read()
        url = settings.url_or_default(self._url)
        if off := _off(settings):
            return Explanation(url=redacted(url), status=ExplainStatus.DISABLED, reason=off)
        return explain(url, self._storage_options, deadline, self._keys.policy(settings))

    def _warm(self, deadline: Deadline, clock: Stopwatch, max_bytes: int) -> WarmResult:
        settings = Settings.read()
        url = settings.url_or_default(self._url)
        with clock.stage("torch"):
            if off := _off(settings):
                return WarmResult(url=redacted(url), status=WarmStatus.DISABLED, reason=off)
            known = session(url, self._storage_options)
            _compiler.watch()
            known.folder = _compiler.writable_cache_folder()
            environment = _compiler.current_environment()
            warnings = tuple(_compiler.loading_warnings())
        with clock.stage("open"):
            store = Store.open(url, storage_options=self._storage_options, deadline=deadline.restarted())
        policy = self._keys.policy(settings)
        crash_guard = guard_beside(known.folder)
        install()
        result = Warming(
            store,
            environment,
            known,
            clock,
            self._progress,
            files=self._files,
            crash_guard=crash_guard,
            policy=policy,
            max_bytes=max_bytes,
        ).run()
        return replace(result, warnings=warnings + result.warnings)

    def _take(self, deadline: Deadline, labels: Mapping[str, str], clock: Stopwatch) -> "PublishResult | _Taken":
        settings = Settings.read()
        url = settings.url_or_default(self._url)
        if settings.read_only:
            return PublishResult(url=redacted(url), status=PublishStatus.READ_ONLY, reason="MEGACACHE_READ_ONLY is set")
        with clock.stage("torch"):
            if off := _off(settings):
                return PublishResult(url=redacted(url), status=PublishStatus.DISABLED, reason=off)
            known = session(url, self._storage_options)
            recorded = take(known, deadline, files=self._files)
        publication = Publication(
            recorded,
            known,
            clock,
            self._progress,
            url=redacted(url),
            labels=checked_labels(labels),
            max_bytes=self._max_publish_bytes,
            signing=lambda: call(
                lambda: self._keys.signing(settings), deadline=deadline, doing="loading the signing key"
            ),
        )
        return _Taken(url=url, session=known, publication=publication, deadline=deadline)

    def _conclude(self, taken: "PublishResult | _Taken", receipt: Receipt, clock: Stopwatch) -> PublishResult:
        result = taken if isinstance(taken, PublishResult) else self._softly(lambda: self._upload(taken))
        result = replace(result, receipt=receipt, seconds=clock.seconds())
        report("publish", result)
        if result.status is not PublishStatus.DISABLED:
            report_worth(result.url, receipt)
        return result.raise_for_status() if self._strict else result

    def _upload(self, taken: "_Taken") -> PublishResult:
        def open_store() -> Store:
            return Store.open(taken.url, storage_options=self._storage_options, deadline=taken.deadline)

        with taken.session.publishing(taken.deadline):
            return taken.publication.run(open_store)

    def _softly(self, step: Callable[[], _Step]) -> "_Step | PublishResult":
        try:
            return step()
        except MegacacheError as error:
            return PublishResult(
                url=_shown(self._url), status=PublishStatus.UNAVAILABLE, reason=str(error), error=error
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class _Taken:
    """What was recorded at the moment of the call, on its way to the store."""

    url: str
    session: Session
    publication: Publication
    deadline: Deadline


def _off(settings: Settings) -> str:
    """Say by what caching is switched off, or nothing."""
    return "MEGACACHE_DISABLE is set" if settings.disabled else _compiler.switched_off()


def _shown(url: str | os.PathLike[str] | None) -> str:
    try:
        return redacted(Settings.read().url_or_default(url))
    except SettingsError:
        return redacted(str(url or ""))


def report(verb: str, result: WarmResult | PublishResult) -> None:
    """Log how a call ended."""
    level = logging.WARNING if result.error is not None else logging.INFO
    _log.log(
        level,
        "%s %s: url=%s artifacts=%d files=%d bytes=%d reason=%s",
        verb,
        result.status,
        result.url,
        sum(result.artifacts.values()),
        result.files,
        result.bytes_stored,
        result.reason,
    )
    for warning in result.warnings:
        _log.warning("%s: url=%s warning=%s", verb, result.url, warning)


def report_worth(url: str, receipt: Receipt) -> None:
    """Log what the warm starts were worth."""
    _log.info("receipt: url=%s verdict=%s", url, receipt)
    for warning in receipt.warnings:
        _log.warning("receipt: url=%s warning=%s", url, warning)


def report_explanation(found: Explanation) -> None:
    """Log how many graphs missed."""
    _log.info("explain %s: url=%s misses=%d reason=%s", found.status, found.url, len(found.misses), found.reason)
