"""Warm a process before its first compilation, and publish what it compiled once it has gone quiet, and at its end.

Nothing of this changes what the program does: whatever fails here is logged, and the program goes on cold.
"""

import functools
import logging
import os
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from megacache import _compiler
from megacache._api import publish, receipt, warm
from megacache._cache import PublishStatus, Receipt, crash_guard
from megacache._settings import AutostartSettings, Settings
from megacache.errors import MegacacheError
from megacache.integrations import _ending, _receipts

_log = logging.getLogger("megacache")
_POLL_SECONDS = 0.2
_PUBLISH_SECONDS = 300.0
_LONGEST_AFTER_SIGN = 1.0
_SHORTEST_PAUSE, _LONGEST_PAUSE, _DOUBLINGS = 1.0, 600.0, 10


@functools.cache
def autostart() -> "Autostart":
    """Look after this process from now on; calling it again changes nothing.

    Raises `SettingsError` for a variable that means nothing, and `CompilerError` if PyTorch cannot be heard.
    """
    settings = AutostartSettings.read()
    started = Autostart(settings)
    if settings.log is not None:
        _speak(settings.log)
    if not Settings.read().disabled:
        crash_guard.install()  # before: what warms at a compilation's beginning has to be within what marks it
        _compiler.on_compilations(started.begins, started.ends)
        os.register_at_fork(after_in_child=started.after_fork)
        _ending.on_ending(started.finish)
    return started


class Autostart:
    """Warms and publishes for this process."""

    def __init__(self, settings: AutostartSettings) -> None:
        self._settings = settings
        self._warmed = False
        self._inherits = False
        self._inherited = Receipt()
        self._begin()

    def _begin(self) -> None:
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._compiling = False
        self._unpublished = False
        self._ending = False
        self._ended = False
        self._last = 0.0
        self._compilations = 0
        self._compilations_at_end = 0
        self._failures = 0
        self._device: int | None = None

    def after_fork(self) -> None:
        """Begin anew in a forked child: what its parent compiled is its parent's to publish."""
        self._begin()
        self._inherits = self._settings.receipts is not None

    def begins(self) -> None:
        """Warm, before the first compilation of this process."""
        self._compiling = True
        _ending.goes_on()
        if self._inherits:
            self._inherits, self._inherited = False, receipt()
        self.warm()

    def warm(self) -> None:
        """Warm now, if that has not been done."""
        if self._warmed:
            return
        self._warmed = True
        try:
            warm(timeout=self._settings.warm_timeout)
        except Exception:  # noqa: BLE001 - the program goes on
            _log.exception("warm failed")

    def ends(self) -> None:
        """Note that something may have been compiled that is not published."""
        with self._changed:
            self._compiling = False
            self._unpublished = True
            self._compilations += 1
            self._last = time.monotonic()
            with suppress(MegacacheError):
                self._device = _compiler.current_device()
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="megacache-autostart", daemon=True)
                thread.start()  # some versions of Python refuse that once the main thread has ended
                self._thread = thread
            self._changed.notify_all()

    def finish(self) -> None:
        """Publish what is left and wait for it so long, unless the program has failed, or is still compiling.

        It is called again if the program went on after its main thread had ended; what failed is not tried again then.
        """
        crash_guard.disarm_all()
        if self._thread is None or _ending.failed():
            return
        if self._is_left() and self._is_allowed() and self._settings.exit_timeout:
            self._publish_at_end(self._settings.exit_timeout)
        _receipts.leave(self._settings.receipts, self._inherited)

    def _publish_at_end(self, seconds: float) -> None:
        with self._changed:
            self._ending = True
            self._changed.notify_all()
            if not self._changed.wait_for(self._is_over, timeout=seconds):
                _log.warning("publish not finished: exit_timeout=%g", seconds)
            self._compilations_at_end = self._compilations

    def _watch(self) -> None:
        """Publish whenever it is time, for as long as the process lives; what fails is tried again, ever later."""
        while not self._ended:
            with self._changed:
                while not self._is_time():
                    self._changed.wait(_POLL_SECONDS if self._unpublished else None)
                seen, device = self._last, self._device
                ending = self._ending
            done = self._publish(device, self._settings.exit_timeout if ending else _PUBLISH_SECONDS)
            with self._changed:
                self._unpublished = self._last != seen or not done
                self._last = self._last if done else time.monotonic()
                self._failures = 0 if done else self._failures + 1
                self._ending = self._ending and not ending
                self._ended = ending and not _ending.threads_go_on()
                self._changed.notify_all()

    def _is_time(self) -> bool:
        if not self._unpublished or self._compiling or not self._is_allowed():
            return False
        quiet = self._settings.publish_after
        if self._settings.publish_when is not None:
            quiet = min(quiet, _LONGEST_AFTER_SIGN)
        return self._ending or time.monotonic() >= self._last + pause(quiet, self._failures)

    def _is_left(self) -> bool:
        new = self._compilations > self._compilations_at_end
        return self._unpublished and not self._compiling and new

    def _is_over(self) -> bool:
        return not (self._ending and self._unpublished)

    def _is_allowed(self) -> bool:
        sign = self._settings.publish_when
        return sign is None or Path(sign).exists()

    def _publish(self, device: int | None, seconds: float) -> bool:
        """Publish; tell whether nothing is left to try again."""
        try:
            _compiler.use_device(device)
            return publish(timeout=seconds).status is not PublishStatus.UNAVAILABLE
        except Exception:  # noqa: BLE001 - as above
            _log.exception("publish failed")
            return True
        finally:
            _receipts.leave(self._settings.receipts, self._inherited)


def pause(quiet: float, failures: int) -> float:
    """Give the seconds before a publication: so long a quiet, and twice as long after each failure in a row."""
    if not failures:
        return quiet
    return max(quiet, min(max(quiet, _SHORTEST_PAUSE) * 2.0 ** min(failures, _DOUBLINGS), _LONGEST_PAUSE))


def _speak(level: str) -> None:
    """Tell on stderr what megacache logs, in a program that may not have set up logging."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("megacache: %(message)s"))
    _log.addHandler(handler)
    _log.setLevel(level.upper())
    _log.propagate = False
