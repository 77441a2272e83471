"""Mark this process while it may die of what it has loaded, so that the next start leaves that out.

A marker lies beside PyTorch's cache while artifacts are handed over, and from the beginning of a compilation, in which
they are unpickled, until some seconds after its end, when what they hold has been called. Python's faulthandler writes
into it if the process dies of a fault of its own: one that was killed from outside accuses nobody. Where the program
uses the faulthandler itself, as under torchelastic, nobody can tell the two apart: there the second death counts.

An instance that loses its disk when it dies has the same marker in the store, too.
"""

import faulthandler
import functools
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from megacache import _compiler
from megacache._deadline import Deadline
from megacache._layout import EnvironmentPrefix
from megacache._manifest import Manifest
from megacache._markers import Markers, Suspect
from megacache._shutdown import at_shutdown
from megacache._store import Store
from megacache._store_markers import PATIENCE_SECONDS, StoreMarkers
from megacache.errors import CompilerError

SURVIVAL_SECONDS = 10.0
"""A process that lives for so long after a compilation has survived what was loaded for it."""

_guards: "dict[Path, CrashGuard]" = {}


class CrashGuard:
    """Has a marker in one folder whenever this process may die of what it has loaded."""

    def __init__(self, folder: Path) -> None:
        self.markers = Markers(folder)
        """Those of other processes, too."""
        self._loads: dict[str, Suspect] = {}
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may come to it in the same thread
        self._timer: threading.Timer | None = None
        self._faulthandler: _BorrowedFaulthandler | None = None
        self._impossible = False
        self._elsewhere: dict[tuple[str, str], StoreMarkers] = {}

    def add(self, manifests: Iterable[Manifest]) -> None:
        """Note what is being loaded."""
        for manifest in manifests:
            self._loads[manifest.bundle] = Suspect.of(manifest)
            self.markers.forget_riddance(manifest.bundle)

    def also_in(self, store: Store, prefix: EnvironmentPrefix, instance: str) -> StoreMarkers:
        """Have every marker of this process in a store, too, from now on; give those of its instance that are there."""
        markers = StoreMarkers(store, prefix, self.markers, instance)
        return self._elsewhere.setdefault((store.url, prefix.path), markers)

    def arm(self, deadline: Deadline | None = None) -> None:
        """Put the marker up, if anything was loaded: from now on a death counts.

        A store has to take it before the deadline, or soon.
        """
        with self._lock:
            self._forget_timer()
            if self._loads and not self.markers.is_up and not self._impossible:
                self._put_up()
                self._put_up_elsewhere(deadline or Deadline.after(PATIENCE_SECONDS))

    def disarm(self) -> None:
        """Take the marker down: this process has survived."""
        with self._lock:
            self._forget_timer()
            self._give_back()
            if self.markers.is_up:  # first there: a marker that is in the store alone is of a process that is gone
                for markers in self._elsewhere.values():
                    markers.take_down()
            self.markers.take_down()

    @contextmanager
    def armed(self, deadline: Deadline) -> Iterator[None]:
        """Let a death count for the length of a block, or for longer, so that a store need not be asked at each."""
        self.arm(deadline)
        try:
            yield
        finally:
            if self._elsewhere:
                self.disarm_later()
            else:
                self.disarm()

    def disarm_later(self) -> None:
        """Take the marker down after some seconds."""
        with self._lock:
            self._forget_timer()
            if self.markers.is_up:
                self._timer = threading.Timer(SURVIVAL_SECONDS, self.disarm)
                self._timer.daemon = True
                self._timer.start()

    def after_fork(self) -> None:
        """Leave the marker to the parent: a child keeps no lock alive."""
        self._give_back()
        self.markers.leave()
        self._begin()

    def _put_up(self) -> None:
        blind = faulthandler.is_enabled()
        try:
            descriptor = self.markers.put_up(self._loads.values(), blind=blind)
        except OSError:  # a start without a marker is better than none
            self._impossible = True
        else:
            self._faulthandler = None if blind else _BorrowedFaulthandler(descriptor)

    def _put_up_elsewhere(self, deadline: Deadline) -> None:
        if self.markers.is_up:
            for markers in self._elsewhere.values():
                markers.put_up(self.markers.name, self._loads, deadline)

    def _give_back(self) -> None:
        if self._faulthandler is not None:
            self._faulthandler.give_back()
            self._faulthandler = None

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class _BorrowedFaulthandler:
    """Lets Python write into a file if the process dies of a fault, until the program wants that for itself."""

    def __init__(self, descriptor: int) -> None:
        self._enable = faulthandler.enable
        self._taken = False
        self._enable(file=descriptor, all_threads=False)
        faulthandler.enable = self._enable_for_program

    def give_back(self) -> None:
        """Leave everything as it was, or as the program has set it meanwhile."""
        faulthandler.enable = self._enable
        if not self._taken:
            faulthandler.disable()

    def _enable_for_program(self, *args: Any, **options: Any) -> None:
        self._taken = True
        self._enable(*args, **options)


def guard_beside(folder: str) -> CrashGuard:
    """Give the one guard of this process for the markers beside a cache folder of PyTorch."""
    path = Path(folder) / "megacache" / "starts"
    return _guards.setdefault(path, CrashGuard(path))


@functools.cache
def install() -> None:
    """Put the markers of this process up and down as it compiles; a normal end takes them down, too."""
    at_shutdown(disarm_all)
    with suppress(CompilerError):
        _compiler.on_compilations(
            lambda: _each(CrashGuard.arm),
            lambda: _each(CrashGuard.disarm_later),
        )


def disarm_all() -> None:
    """Take the markers of this process down: it ends of its own will."""
    _each(CrashGuard.disarm)


def _each(do: Callable[[CrashGuard], None]) -> None:
    for guard in tuple(_guards.values()):
        do(guard)


os.register_at_fork(after_in_child=functools.partial(_each, CrashGuard.after_fork))
