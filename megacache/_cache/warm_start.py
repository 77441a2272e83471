"""The steps of one warm start: what this process is, what the store has for it, and handing that to PyTorch.

The second step runs in a thread of its own, and imports nothing of PyTorch: its modules import one another in circles,
and a thread that imports some of them at the same time may see them half made.
"""

import time
from collections.abc import Callable
from dataclasses import replace

from megacache import _compiler
from megacache._bundle import Environment
from megacache._cache.cache_folder import CacheFolder
from megacache._cache.call import Call
from megacache._cache.crash_guard import guard_beside, install
from megacache._cache.ranks import HELD_BYTES, ranks_of, strangers
from megacache._cache.results import WarmResult, WarmStatus
from megacache._cache.session import Session
from megacache._cache.single_flight import Flight
from megacache._cache.warm import Warming
from megacache._catalog import Listing, Places
from megacache._runtime import Deadline, in_background
from megacache._store import import_client


class WarmStart:
    """One warm start; `prepare` comes first, in the thread that compiles, then `fetch`, in any, then `load`."""

    _session: Session
    _environment: Environment
    _folder: CacheFolder
    _job: _compiler.Job | None
    _warming: Warming

    def __init__(self, call: Call, *, files: bool, max_bytes: int, wait: float) -> None:
        self._call = call
        self._files = files
        self._max_bytes = max_bytes
        self._wait = wait
        self._told = ""
        self._warnings: tuple[str, ...] = ()

    def run(self) -> WarmResult:
        """Take all steps; what the first compilation imports is imported while the store answers."""
        off = self.prepare()
        if off is not None:
            return off
        fetched = in_background(self.fetch, patience=0.0)
        began = time.monotonic()
        with self._call.clock.stage("torch"):
            _compiler.import_inductor()
        seconds = time.monotonic() - began
        fetched.result()
        # What is imported takes seconds that are not the store's.
        return self.load(self._call.deadline.later(seconds))

    def begin(self) -> tuple[Callable[[], WarmResult], bool]:
        """Let the download go on in the background; give what is left to do in the thread that compiles.

        And tell whether there is a download.
        """
        off = self.prepare()
        if off is not None:
            return lambda: off, False
        before = self._folder.places()
        fetched = in_background(lambda: self.fetch(hold=True), patience=0.0)

        def finish() -> WarmResult:
            fetched.result()
            deadline = self._call.deadline.restarted()
            now = _compiler.current_environment(deadline)
            self._folder.until(deadline)
            if (now.fingerprint, self._folder.places()) == (self._environment.fingerprint, before):
                return self.load(deadline)
            if self._job is not None:
                # The ranks have decided. Those that have changed nothing would take no part in another decision, as
                # rank 0 does not where each rank turns to the GPU of its own number.
                self._folder.begin(files=self._files)
                return self.load(deadline)
            # Since then the program has chosen another device, or turned to a compiler with a folder of its own.
            return WarmStart(
                self._call.restarted(), files=self._files, max_bytes=self._max_bytes, wait=self._wait
            ).run()

        return finish, True

    def prepare(self) -> WarmResult | None:
        """Import what the other steps need, and read the facts of this process; give a result if there is no more."""
        call = self._call
        with call.clock.stage("torch"):
            if off := call.off():
                return WarmResult(url=call.shown, status=WarmStatus.DISABLED, reason=off)
            self._session = call.session()
            # The hooks come before anything is loaded: what is not watched from the beginning is not counted.
            _compiler.watch()
            _compiler.look_into_inner_graphs()
            _compiler.defer_while_compiling()
            folder = call.restarted().on_disk(_compiler.writable_cache_folder)
            self._session.begin(folder)
            self._environment = _compiler.current_environment(call.deadline)
            self._warnings = tuple(_compiler.loading_warnings())
            self._job = _compiler.job()
        install()
        with call.clock.stage("open"):
            for url in (*call.nearer, call.url):
                import_client(url)
        # Importing takes seconds, which are not the store's: the timeout is for the store alone.
        self._call = call.restarted()
        self._folder = CacheFolder(self._call, guard_beside(folder))
        self._folder.begin(files=self._files)
        return None

    def fetch(self, *, hold: bool = False) -> None:
        """Find what fits in the store, and begin to download it; `hold` waits until all of it is in memory."""
        call, most, limit = self._call, self._max_bytes, "max_bytes"
        with ranks_of(self._job, call.deadline) as ranks:
            if ranks is not None:
                with call.clock.stage("ranks"):
                    ranks.meet()
                call = call.until(ranks.deadline)
            if (ranks is not None or hold) and most > HELD_BYTES:
                most, limit = HELD_BYTES, f"the {HELD_BYTES:,} bytes that a rank or a prefetch may hold in memory"
            policy, places = call.policy(), call.open_places()
            listing = self._land(call, places)
            if listing is not None:
                # The wait for another worker has a bound of its own.
                self._call = call = call.restarted()
                places.restart(call.deadline)
            self._folder.until(call.deadline)
            self._warming = Warming(
                call,
                places,
                self._environment,
                self._session,
                self._folder,
                policy=policy,
                max_bytes=most,
                limit=limit,
                ranks=ranks,
            )
            self._warming.fetch(listing, hold=hold)

    def _land(self, call: Call, places: Places) -> Listing | None:
        """Wait for another worker if that is asked for; give what was listed in the end, or None."""
        if not self._wait:
            return None
        if self._job is not None:
            # A rank that waits while the others compile would hold up their collectives, until they time out.
            self._told = f"it did not wait for other workers, because it is one of {self._job.size} ranks of a job"
            return None
        flight = Flight(call, places, self._environment, self._session, wait=self._wait)
        listing = flight.land()
        self._told = flight.told
        return listing

    def load(self, deadline: Deadline) -> WarmResult:
        """Hand what was fetched to PyTorch, in the thread that compiles; what has begun by the deadline is finished."""
        result = self._warming.load(deadline)
        self._warming.fill()
        reason = "; ".join(filter(None, [result.reason, self._told])) if not result else result.reason
        warnings = (*self._warnings, *strangers(self._job), *result.warnings)
        return replace(result, reason=reason, warnings=warnings)
