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
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from megacache import _compiler
from megacache._bundle import Manifest, Start
from megacache._cache.crash_guard.markers import Markers, OwnMarker, Suspect
from megacache._cache.crash_guard.store_markers import PATIENCE_SECONDS, StoreMarkers
from megacache._runtime import Deadline, at_shutdown, unordered
from megacache.errors import CompilerError, MegacacheError

SURVIVAL_SECONDS = 10.0
"""A process that lives for so long after a compilation has survived what was loaded for it."""
_TRIES = 4
"""How often a marker that a store does not give up is taken down while the process goes on."""

_guards: "dict[Path, CrashGuard]" = {}
_InStore = tuple[StoreMarkers, Start]
"""A marker of this process in a store."""


class CrashGuard:
    """Has a marker in one folder whenever this process may die of what it has loaded."""

    def __init__(self, folder: Path) -> None:
        self.markers = Markers(folder)
        """Those of other processes, too."""
        self._loads: Mapping[str, Suspect] = {}
        self._begin()

    def _begin(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may come to it in the same thread
        self._adding = threading.Lock()  # is never held while a store is asked
        self._timer: threading.Timer | None = None
        self._faulthandler: _BorrowedFaulthandler | None = None
        self._impossible = False
        self._stores: Mapping[object, StoreMarkers] = {}
        self._up: list[OwnMarker] = []
        self._up_in_stores: list[_InStore] = []
        self._told: object = None
        self._tries = 0

    def add(self, manifests: Iterable[Manifest]) -> None:
        """Note what is being loaded."""
        added = {manifest.bundle: Suspect.of(manifest) for manifest in manifests}
        for bundle in added:
            self.markers.forget_riddance(bundle)
        with self._adding:
            self._loads = {**self._loads, **added}

    def also_in(self, cache: object, markers: StoreMarkers) -> None:
        """Have markers of this process in a store, too, from now on; for one cache, only where it was named last."""
        with self._adding:
            self._stores = {**self._stores, cache: markers}

    def arm(self, deadline: Deadline | None = None) -> None:
        """Put a marker up, unless one tells already all that was loaded: from now on a death counts.

        A store has to take it before the deadline, and soon.
        """
        deadline = (deadline or Deadline.after(PATIENCE_SECONDS)).sooner(PATIENCE_SECONDS)
        if not self._lock.acquire(timeout=max(deadline.remaining(), 0.001)):
            return
        try:
            self._forget_timer()
            tells = frozenset(self._loads), tuple(self._stores.values())
            if self._loads and tells != self._told and not self._impossible:
                self._told = tells
                self._put_up(deadline)
        finally:
            self._lock.release()

    def disarm(self, deadline: Deadline | None = None) -> None:
        """Take all markers down: this process has survived. With a deadline, it is the last time that this is tried."""
        with self._lock:
            here, there = self._lower()
        self._take_down(here, there, deadline or Deadline.after(PATIENCE_SECONDS))
        if deadline is not None:
            with self._lock:
                self._up_in_stores = [one for one in self._up_in_stores if one not in there]

    @contextmanager
    def armed(self, deadline: Deadline) -> Iterator[None]:
        """Let a death count for the length of a block, or for longer, so that a store need not be asked at each."""
        self.arm(deadline)
        try:
            yield
        finally:
            if self._stores:
                self.disarm_later()
            else:
                self.disarm()

    def disarm_later(self) -> None:
        """Take all markers down after some seconds, and try it again with those that a store does not give up."""
        with self._lock:
            self._forget_timer()
            if self._up or self._up_in_stores:
                self._timer = threading.Timer(SURVIVAL_SECONDS, self._disarm_in_time)
                self._timer.daemon = True
                with suppress(RuntimeError):  # no thread is to be had: they come down later
                    self._timer.start()

    def _disarm_in_time(self) -> None:
        with self._lock:
            if self._timer is not threading.current_thread():  # a compilation has begun meanwhile
                return
            self._tries -= 1
            here, there = self._lower()
        self._take_down(here, there, Deadline.after(PATIENCE_SECONDS))
        with self._lock:
            if self._up_in_stores and self._tries and not self._up:
                self.disarm_later()

    def after_fork(self) -> None:
        """Leave the markers to the parent: a child keeps no lock alive."""
        self._give_back()
        for own in self._up:
            own.leave()
        self._begin()

    def _put_up(self, deadline: Deadline) -> None:
        self._give_back()
        blind = faulthandler.is_enabled()
        try:
            own = self.markers.put_up(self._loads.values(), blind=blind)
        except OSError:  # a start without a marker is better than none
            self._impossible = True
            return
        self._up.append(own)
        self._tries = _TRIES
        self._faulthandler = None if blind else _BorrowedFaulthandler(own.descriptor)
        for markers in self._stores.values():
            start = markers.start(own.name)
            self._up_in_stores.append((markers, start))  # before: a signal's handler may want to take it down meanwhile
            if not markers.put_up(start, self._loads, deadline):
                self._told = None

    def _lower(self) -> tuple[Sequence[OwnMarker], Sequence[_InStore]]:
        """Let a death count no more, and give what has to be taken down, the last first."""
        self._forget_timer()
        self._give_back()
        here, self._up, self._told = self._up, [], None
        return here, self._up_in_stores[::-1]

    def _take_down(self, here: Sequence[OwnMarker], there: Sequence[_InStore], deadline: Deadline) -> None:
        """Begin with the stores: a marker that is there alone is of a process that is gone."""
        with suppress(MegacacheError):
            for done in unordered(
                lambda one: one[0].take_down(one[1], deadline), there, deadline=deadline, doing="taking markers down"
            ):
                with self._lock, suppress(ValueError):  # another thread was faster
                    if done.value:
                        self._up_in_stores.remove(done.item)
        for own in here:
            own.take_down()
        for markers in self._stores.values():
            markers.clear_old(deadline)

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
    deadline = Deadline.after(PATIENCE_SECONDS)
    _each(lambda guard: guard.disarm(deadline))


def _each(do: Callable[[CrashGuard], None]) -> None:
    for guard in tuple(_guards.values()):
        do(guard)


os.register_at_fork(after_in_child=functools.partial(_each, CrashGuard.after_fork))
