"""Warm a process before its first compilation, publish what it compiled once it is quiet, and again when it ends.

Whatever fails here is logged, and the program goes on.
"""

import atexit
import contextvars
import functools
import logging
import os
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path

from megacache import _compiler
from megacache._api import publish, receipt, warm
from megacache._cache import PublishStatus, Receipt, WarmResult, crash_guard
from megacache._runtime import at_shutdown, wait_no_longer
from megacache._settings import AutostartSettings, Settings
from megacache._store import without_secrets
from megacache.errors import MegacacheError
from megacache.integrations._receipts import Receipts
from megacache.integrations._stderr import log_to_stderr

_log = logging.getLogger("megacache")
# Nobody tells when the file of `publish_when` appears.
_POLL_SECONDS = 0.2
_PUBLISH_SECONDS = 300.0
_LONGEST_QUIET_WHEN_READY = 1.0
_SHORTEST_PAUSE, _LONGEST_PAUSE, _DOUBLINGS = 1.0, 600.0, 10


@functools.cache
def autostart() -> "Autostart":
    """Make this process warm and publish by itself; calling it again changes nothing.

    Raises `SettingsError` for a variable with a wrong value, and `CompilerError` if this PyTorch does not tell when it
    compiles.
    """
    settings = AutostartSettings.read()
    started = Autostart(settings)
    if settings.log is not None:
        log_to_stderr(settings.log)
    if not Settings.read().disabled:
        crash_guard.install()
        _compiler.on_compilations(started.before_compilation, started.after_compilation)
        os.register_at_fork(after_in_child=started.after_fork)
        at_shutdown(started.after_main_thread)
    return started


class Autostart:
    """Warms and publishes for this process."""

    def __init__(self, settings: AutostartSettings) -> None:
        self._settings = settings
        self._folders = bool(Settings.read().folders)
        self._warmed = False
        self._warm_result: WarmResult | None = None
        self._inherits = False
        self._inherited = Receipt()
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._compiling = False
        self._unpublished = False
        self._ending = False
        self._tried_at_end = False
        self._last = 0.0
        self._failures = 0
        self._device: int | None = None
        self._context = contextvars.Context()
        self._receipts = Receipts(self._settings.receipts)

    def after_fork(self) -> None:
        """Begin anew in a forked child: what its parent compiled is its parent's to publish."""
        self._begin()
        self._inherits = self._settings.receipts is not None

    def before_compilation(self) -> None:
        """Warm, if this is the first compilation of the process."""
        self._compiling = True
        # What PyTorch has counted before the first compilation of a forked child is its parent's.
        if self._inherits:
            self._inherits, self._inherited = False, receipt()
        self.warm()

    def warm(self) -> None:
        """Warm now, unless this process has done so."""
        if self._warmed:
            return
        # Before the call: a warm start may compile, which leads here again.
        self._warmed = True
        try:
            self._warm_result = warm(timeout=self._settings.warm_timeout, wait=self._settings.wait)
        except Exception:  # noqa: BLE001 - the program goes on
            _log.error("warm failed: %s", without_secrets(traceback.format_exc()))
        if self._folders:  # other compilers do not tell of what they compile
            with self._changed:
                self._plan()

    def after_compilation(self) -> None:
        """Plan a publication in a thread of its own."""
        with self._changed:
            self._compiling = False
            self._plan()

    def _plan(self) -> None:
        self._unpublished = True
        self._tried_at_end = False
        self._last = time.monotonic()
        # The thread that publishes begins with the first GPU, and this one may use another.
        with suppress(MegacacheError):
            self._device = _compiler.current_device()
        # The same goes for PyTorch's configuration, which lies in context variables.
        self._context = contextvars.copy_context()
        if self._thread is None:
            # A daemon, for the end of the process waits no longer than the exit timeout.
            thread = threading.Thread(target=self._publish_in_time, name="megacache-autostart", daemon=True)
            thread.start()  # some versions of Python refuse that once the main thread has ended
            self._thread = thread
        self._changed.notify_all()

    def _publish_in_time(self) -> None:
        while True:
            with self._changed:
                while not self._is_time():
                    self._changed.wait(_POLL_SECONDS if self._unpublished else None)
                seen, device, context = self._last, self._device, self._context
                ending = self._ending
            seconds = self._settings.exit_timeout if ending else _PUBLISH_SECONDS
            done = context.run(self._publish, device, seconds)
            with self._changed:
                # More may have been compiled while this was published.
                self._unpublished = self._last != seen or not done
                self._last = self._last if done else time.monotonic()
                self._failures = 0 if done else self._failures + 1
                self._ending = self._ending and not ending
                self._changed.notify_all()

    def _is_time(self) -> bool:
        # What is recorded is read under the compile lock: it would wait for the compilation.
        if not self._unpublished or self._compiling:
            return False
        return self._ending or (self._is_ready() and time.monotonic() >= self._last + self._pause())

    def _is_ready(self) -> bool:
        sign = self._settings.publish_when
        return sign is None or Path(sign).exists()

    def _pause(self) -> float:
        quiet = self._settings.publish_after
        if self._settings.publish_when is not None:
            quiet = min(quiet, _LONGEST_QUIET_WHEN_READY)
        return pause(quiet, self._failures)

    def _publish(self, device: int | None, seconds: float) -> bool:
        """Publish; tell whether nothing is left to try again."""
        try:
            _compiler.use_device(device)
            above = self._settings.compact_above
            return publish(timeout=seconds, compact_above=above).status is not PublishStatus.UNAVAILABLE
        except Exception:  # noqa: BLE001 - the program goes on
            # A bug would only happen again.
            _log.error("publish failed: %s", without_secrets(traceback.format_exc()))
            return True
        finally:
            self._receipts.write(self._inherited, self._warm_result)

    def after_main_thread(self) -> None:
        """Finish, and once more after the threads that outlive the main thread."""
        # Threads cannot be joined here: one that waits for the end of the main thread, as the workers of
        # `concurrent.futures` do, would wait for ever. What `atexit` calls comes after Python has joined them.
        if any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread()):
            atexit.register(self.finish)
        ends = time.monotonic() + self._settings.exit_timeout
        self.finish()
        wait_no_longer(max(ends - time.monotonic(), 0))

    def finish(self) -> None:
        """Publish what is left, however the program has ended, and wait for that as long as the exit timeout says.

        While a compilation is under way, nothing can be published.
        """
        crash_guard.disarm_all()
        if self._thread is None:
            return
        self._unpublished |= self._folders
        if self._unpublished and not self._compiling and not self._tried_at_end and self._settings.exit_timeout:
            self._publish_at_end(self._settings.exit_timeout)
        self._receipts.write(self._inherited, self._warm_result, at_end=self._settings.exit_timeout)

    def _publish_at_end(self, seconds: float) -> None:
        # The thread publishes at the end as well, since it may be in the middle of it already.
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            if not self._changed.wait_for(lambda: not (self._ending and self._unpublished), timeout=seconds):
                _log.warning("publish not finished: exit_timeout=%g; raise MEGACACHE_EXIT_TIMEOUT", seconds)
            self._tried_at_end = True


def pause(quiet: float, failures: int) -> float:
    """Give the seconds to wait before a publication: the quiet asked for, doubled after each failure in a row."""
    if not failures:
        return quiet
    return max(quiet, min(max(quiet, _SHORTEST_PAUSE) * 2.0 ** min(failures, _DOUBLINGS), _LONGEST_PAUSE))
