"""The verbs on one cache. Faults become results here, and nowhere below."""

from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from typing import Any, Literal, TypeVar, overload

from megacache import _compiler
from megacache._bundle import checked_labels
from megacache._cache.call import Call
from megacache._cache.compacting import checked_count
from megacache._cache.explain import ExplainStatus, Explanation, explain
from megacache._cache.log import log_explanation, log_result, log_worth
from megacache._cache.prefetch import Begun, Prefetch, finish_pending, pending_for, remember
from megacache._cache.publish import Publication
from megacache._cache.receipt import Receipt
from megacache._cache.recording import recorded_in, take
from megacache._cache.results import PublishResult, PublishStatus, WarmResult, WarmStatus
from megacache._cache.session import Session, note_cost, session, take_receipt
from megacache._cache.single_flight import checked_wait
from megacache._cache.tally import status_of
from megacache._cache.warm_start import WarmStart
from megacache._catalog import WARM_MAX_BYTES
from megacache._runtime import Deadline, ProgressCallback, Stopwatch, in_background, quiet
from megacache._settings import Settings, Url
from megacache._store import redacted, showable, without_secrets
from megacache._trust import Keys, KeySource
from megacache.errors import MegacacheError, SettingsError

WARM_TIMEOUT = 60.0
PUBLISH_TIMEOUT = 300.0
EXPLAIN_TIMEOUT = 30.0
_Step = TypeVar("_Step")


class Cache:
    """One cache in a store, by the URL of its model and version."""

    def __init__(
        self,
        url: Url | None = None,
        *,
        storage_options: Mapping[str, Any] | None = None,
        files: bool = True,
        strict: bool = False,
        progress: ProgressCallback | None = None,
        max_publish_bytes: int | None = None,
        compact_above: int | None = None,
        trusted_keys: Iterable[KeySource] | None = None,
        trust_threshold: int | None = None,
        sign_with: Any = None,
        folders: _compiler.Folders | None = None,
    ) -> None:
        """Name a cache; nothing is opened before it is used.

        Args:
            url: Any URL that fsspec knows, chained ones included; a cache of copies, such as `simplecache::`, is left
                out. None: `MEGACACHE_URL`, else a folder under the user's cache folder. Before it, nearer places may
                stand that hold copies of it, as in `"/mnt/node s3://bucket/flux/v1"`, or as a sequence.
            storage_options: What fsspec's filesystem for that URL takes: credentials, endpoint, … Nearer places of the
                same protocol get them, too. Never logged.
            files: Carry compiled files as well, such as C++ kernels: PyTorch's own artifacts hold only their source.
            strict: Raise faults instead of returning them.
            progress: Called after each chunk, in the thread that loads, or in that of `publish(wait=False)`.
            max_publish_bytes: Publish nothing if the chunks of one publication would take more than this in the store.
            compact_above: Merge the bundles of this environment, as `megacache compact` does, after a publication that
                leaves more than this number of them; within the same time. None: merge none.
            trusted_keys: Files of public keys, PEM or securesystemslib's JSON. What none of them has signed is not
                opened. None: `MEGACACHE_TRUSTED_KEYS`, and without it whoever may write to the store is trusted.
            trust_threshold: How many of these keys must have signed. None: `MEGACACHE_TRUST_THRESHOLD`, else 1.
            sign_with: What to sign publications with: the file of a private key, the URI of one in a key service, or
                a `securesystemslib.signer.Signer`. None: `MEGACACHE_SIGNING_KEY`, and without it nothing is signed.
            folders: Caches of other compilers that travel, too, by name: a path, a `Folder` with facts of your own, or
                None for a tool that megacache knows: `cpp_extension`, `cute_dsl`, `deep_gemm`, `flashinfer` or
                `tilelang`. They add to those of `MEGACACHE_FOLDERS`. From the first call on they are this process's,
                whichever cache is used.
        """
        self._url = url
        self._storage_options = storage_options
        self._files = files
        self._strict = strict
        self._progress = quiet(progress)
        self._max_publish_bytes = max_publish_bytes
        self._compact_above = compact_above
        # An iterator can be read once, and a cache is used often.
        trusted = None if trusted_keys is None else tuple(trusted_keys)
        self._folders = dict(folders or {})
        self._keys = Keys(trusted=trusted, threshold=trust_threshold, sign_with=sign_with)

    def warm(self, *, timeout: float = WARM_TIMEOUT, max_bytes: int = WARM_MAX_BYTES, wait: float = 0.0) -> WarmResult:
        """Load what was published for this environment into PyTorch's caches; call it before the first compilation.

        On a GPU this initialises the device, as the first compilation would: a server that forks its workers must call
        it in the workers. While the store answers, it imports the rest of PyTorch's compiler. The ranks of a
        distributed job load the same bundles, or none: each must call it, and waits for the others. While torch
        compiles afterwards, full collections of Python's garbage collector wait, as in torch 2.15 and later;
        `TORCH_DYNAMO_GC_GEN2_THRESHOLD_DURING_COMPILE=0` in the environment switches that off.

        Args:
            timeout: Seconds to wait for the store, and for the disk of PyTorch's cache folder, counted from when
                PyTorch's compiler has been imported. Loading counts, but a load that has begun is not cut short.
            max_bytes: How much is loaded at most, in bytes before compression; it goes to PyTorch's cache folder. The
                newest bundles that fit are loaded, each whole; a warning names the others. The default, 16 GiB, is far
                above what models need, and limits what a store that went wrong can put there.
            wait: Seconds to wait, besides, for another worker that compiles what is missing. Where nothing is published
                for this environment, one worker goes on at once and compiles; the others load what it publishes, or
                compile themselves when the wait is over. When that one dies, another takes its place within a minute;
                when it ends, at the next listing. It is for workers that do not depend on each other: a rank of a
                distributed job waits for nobody.

        Returns:
            A `WarmResult`; in every case but `loaded` the process goes on as it would have without this call.

        Raises:
            MegacacheError: Only if strict, and only for the statuses `unavailable` and `untrusted`.
        """
        begun = pending_for(self._terms(max_bytes))
        if begun is None:
            finish_pending()
        result = None if begun is None else begun.finish()
        # Who did not wait for other workers may do so now.
        if begun is None or result is None or (wait and not begun.waits and result.status is WarmStatus.MISS):
            clock = Stopwatch()
            result = self._concluded(lambda: self._start(timeout, max_bytes, wait, clock).run(), clock)
        return result.raise_for_status() if self._strict else result

    def prefetch(
        self, *, timeout: float = WARM_TIMEOUT, max_bytes: int = WARM_MAX_BYTES, wait: float = 0.0
    ) -> Prefetch:
        """Begin what `warm` does, and let the download go on beside what the program does next.

        As `warm`, it imports PyTorch's compiler and reads the facts of this process, which on a GPU initialises the
        device. Then it returns, while the store is asked: load the weights meanwhile. The process fills PyTorch's
        caches before its first compilation, by itself, or when it is asked for the result.

        Args:
            timeout: Seconds to wait for the store, from now on. What has come by then is loaded, however late that is;
                to load it, there is as much time again.
            max_bytes: As in `warm`; what is downloaded is held in memory until it is loaded, and 2 GiB at most.
            wait: As in `warm`.

        Returns:
            A `Prefetch`, whose `result()` fills the caches and gives a `WarmResult`, in which the total of `seconds` is
            what the program has waited. Until then, a `warm` with the same arguments gives that result, too.
        """
        terms = self._terms(max_bytes)
        begun = pending_for(terms)
        if begun is None:
            finish_pending()
            begun = self._begin(timeout, max_bytes, wait)
        return Prefetch(begun, strict=self._strict)

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
        upload = self._softly(lambda: self._recorded(self._call(timeout, clock), labels or {}), _raising)
        # Taken now, as the record was: in the background, the program compiles on.
        receipt = take_receipt()

        def finish() -> PublishResult:
            try:
                return self._conclude(upload, clock, receipt)
            finally:
                self._let_others_go_on()

        return finish() if wait else in_background(finish)

    def import_blob(
        self, blob: bytes, *, timeout: float = PUBLISH_TIMEOUT, labels: Mapping[str, str] | None = None
    ) -> PublishResult:
        """Publish the artifacts of a blob that `torch.compiler.save_cache_artifacts()` gave, for this environment.

        Args:
            blob: It does not say where it was compiled; that must have been in an environment like this one.
            timeout: Seconds within which all must be done.
            labels: As in `publish`.

        Raises:
            SettingsError: The blob holds nothing of use.
        """
        clock = Stopwatch()
        recorded = recorded_in(blob)

        def upload() -> PublishResult:
            call = self._call(timeout, clock)
            # A session of its own: what this process has loaded is not a parent of what it imports.
            return Publication(call, recorded, Session(), labels=checked_labels(labels or {})).run()

        return self._conclude(upload, clock)

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
        result = self._softly(
            lambda: self._explain(self._call(timeout, clock)),
            lambda error: Explanation(
                url=self._shown(), status=ExplainStatus.UNAVAILABLE, reason=str(error), error=error
            ),
        )
        result = replace(result, seconds=clock.seconds()["total"], error=showable(result.error))
        log_explanation(result)
        return result.raise_for_status() if self._strict else result

    def _call(self, timeout: float, clock: Stopwatch) -> Call:
        settings = Settings.read()
        *nearer, url = settings.places(self._url)
        _compiler.register_folders({**settings.folders, **self._folders})
        return Call(
            url=url,
            nearer=tuple(nearer),
            storage_options=self._storage_options,
            settings=settings,
            keys=self._keys,
            deadline=Deadline.after(timeout),
            clock=clock,
            progress=self._progress,
        )

    def _start(self, timeout: float, max_bytes: int, wait: float, clock: Stopwatch) -> WarmStart:
        call = self._call(timeout, clock)
        return WarmStart(call, files=self._files, max_bytes=max_bytes, wait=checked_wait(wait))

    def _begin(self, timeout: float, max_bytes: int, wait: float) -> Begun:
        clock = Stopwatch()

        def start() -> WarmStart:
            return self._start(timeout, max_bytes, wait, clock)

        def conclude(steps: Callable[[], WarmResult]) -> WarmResult:
            clock.go_on()
            return self._concluded(steps, clock)

        with _compiler.full_collections_deferred():
            steps, goes_on = self._softly(lambda: start().begin(), lambda error: (_raising(error), False))
        terms = self._terms(max_bytes)
        begun = Begun(steps, lambda: start().run(), conclude, terms=terms, seconds=timeout, waits=bool(wait))
        if goes_on:
            remember(begun)
        else:
            begun.finish_once()
        clock.stop()
        return begun

    def _terms(self, max_bytes: int) -> object:
        """Give what decides on what a warm start loads."""
        keys = (self._keys.trusted, self._keys.threshold)
        return (self._url, self._storage_options, self._files, self._folders, keys, max_bytes)

    def _concluded(self, steps: Callable[[], WarmResult], clock: Stopwatch) -> WarmResult:
        with _compiler.full_collections_deferred():
            result = self._softly(
                steps,
                lambda error: WarmResult(url=self._shown(), status=status_of(error), reason=str(error), error=error),
            )
        result = replace(result, seconds=clock.seconds(), error=showable(result.error))
        note_cost(result)
        log_result("warm", result)
        return result

    def _recorded(self, call: Call, labels: Mapping[str, str]) -> Callable[[], PublishResult]:
        """Take what was recorded by now; give the function that uploads it."""
        if call.settings.read_only:
            read_only = "MEGACACHE_READ_ONLY is set"
            return lambda: PublishResult(url=call.shown, status=PublishStatus.READ_ONLY, reason=read_only)
        with call.clock.stage("torch"):
            if off := call.off():
                return lambda: PublishResult(url=call.shown, status=PublishStatus.DISABLED, reason=off)
            session = call.session()
            recorded = take(session, call.deadline, files=self._files)
        own = checked_labels(labels)
        return Publication(
            call,
            recorded,
            session,
            labels=own,
            max_bytes=self._max_publish_bytes,
            compact_above=checked_count(self._compact_above),
        ).run

    def _conclude(
        self, upload: Callable[[], PublishResult], clock: Stopwatch, receipt: Receipt | None = None
    ) -> PublishResult:
        result = self._softly(
            upload,
            lambda error: PublishResult(
                url=self._shown(), status=PublishStatus.UNAVAILABLE, reason=str(error), error=error
            ),
        )
        result = replace(result, receipt=receipt, seconds=clock.seconds(), error=showable(result.error))
        log_result("publish", result)
        if receipt is not None and result.status is not PublishStatus.DISABLED:
            log_worth(result.url, receipt)
        return result.raise_for_status() if self._strict else result

    def _explain(self, call: Call) -> Explanation:
        if off := call.off():
            return Explanation(url=call.shown, status=ExplainStatus.DISABLED, reason=off)
        return explain(call)

    def _softly(self, step: Callable[[], _Step], failed: Callable[[MegacacheError], _Step]) -> _Step:
        """Take a step; turn a fault into the result that `failed` makes of it."""
        try:
            return step()
        except MegacacheError as error:
            return failed(error)
        # No door translates memory that runs out, a warning that the program turns into an error, or a bug. The program
        # goes on after these, too.
        except Exception as error:  # noqa: BLE001 - the promise is that none gets out
            return failed(_unforeseen(error))

    def _let_others_go_on(self) -> None:
        """End the wait of other workers, whether there is something for them now or not."""
        with suppress(MegacacheError):
            session(" ".join(Settings.read().places(self._url)), self._storage_options).release()

    def _shown(self) -> str:
        try:
            return redacted(" ".join(Settings.read().places(self._url)))
        except SettingsError:
            return redacted(str(self._url or ""))


def _unforeseen(error: Exception) -> MegacacheError:
    if isinstance(error, MemoryError):
        fault = MegacacheError("this process has no memory left", hint="give it more, or publish less at a time")
    else:
        text = without_secrets(f"{type(error).__name__}: {error}")
        fault = MegacacheError(f"unexpected error: {text}", hint="please report it")
    fault.__cause__ = error
    return fault


def _raising(error: MegacacheError) -> Callable[[], Any]:
    # The fault is raised where the result is due, which may be in another thread.
    def fail() -> Any:
        raise error

    return fail
