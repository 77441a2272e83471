"""Mark this process while it may die of what it has loaded, so that a later start leaves that out.

A marker lies beside PyTorch's cache while artifacts are handed over, and from the beginning of a compilation, in which
they are unpickled, until some seconds after its end, when what they hold has been called. Whether a process that left
one was killed or crashed is not told apart: the second death with the same bundle counts.
"""

import functools
import os
import threading
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path

from megacache import _compiler
from megacache._bundle import Digest, Manifest
from megacache._cache.crash_guard.locked_files import OwnFile
from megacache._cache.crash_guard.markers import Deaths, Markers, Suspect
from megacache._cache.crash_guard.notes import Notes
from megacache._cache.crash_guard.rolls import Rolls
from megacache._runtime import Deadline, at_shutdown, call, kept
from megacache.errors import CompilerError, DeadlineError, UnavailableError

SURVIVAL_SECONDS = 10.0
"""A process that lives for so long after a compilation has survived what was loaded for it."""

_END_SECONDS = 2.0

_guards: "dict[Path, CrashGuard]" = {}


class CrashGuard:
    """Keeps a marker in one folder whenever this process may die of what it has loaded."""

    def __init__(self, folder: Path) -> None:
        self.markers = Markers(folder)
        """Those of other processes, too."""
        self.rolls = Rolls(folder)
        """Those of other processes, too."""
        self.notes = Notes(folder)
        self._loads: Mapping[str, Suspect] = {}
        self._digests: Mapping[str, Mapping[tuple[str, str], Digest]] = {}
        self._roll: OwnFile | None = None
        self._signed_in: set[str] = set()
        self._before = Deaths()
        self._begin()

    def _begin(self) -> None:
        # Reentrant: the handler of a signal may need it in the thread that holds it.
        self._lock = threading.RLock()
        self._timer: threading.Timer | None = None
        self._impossible = False
        self._up: list[OwnFile] = []
        self._marked: frozenset[str] = frozenset()

    def look_back(self) -> Deaths:
        """Read what earlier processes had loaded when they died; the markers of this one will remember it."""
        self.rolls.clear_old()
        self.markers.clear_old()
        self._before = self.markers.deaths()
        return self._before

    def add(self, manifests: Collection[Manifest]) -> None:
        """Note what is being loaded."""
        added = {manifest.bundle: Suspect.of(manifest) for manifest in manifests}
        # What is loaded again has to be cleared again if it is withdrawn.
        for bundle in added:
            self.notes.forget(bundle)
        files = {one.bundle: {(file.root, file.path): file.digest for file in one.files.index} for one in manifests}
        with self._lock:
            self._loads = {**self._loads, **added}
            self._digests = {**self._digests, **files}

    def holding(self, root: str, files: Mapping[str, Digest]) -> Iterator[Suspect]:
        """Give the bundles that this process has loaded and that hold one of some files of a root, by their paths."""
        wanted = {((root, path), digest) for path, digest in files.items()}
        for bundle, held in self._digests.items():
            if not wanted.isdisjoint(held.items()):
                yield self._loads[bundle]

    def sign_in(self, bundle: str) -> None:
        """Tell other processes that this one, as long as it lives, may need the files of a bundle."""
        with self._lock, suppress(OSError):  # where nothing may be written, other processes are not told
            if bundle not in self._signed_in:
                self._signed_in.add(bundle)
                self._roll = self.rolls.begin() if self._roll is None else self._roll
                os.write(self._roll.descriptor, f"{bundle}\n".encode())

    def arm(self) -> None:
        """Put a marker up, unless one names all that was loaded: from now on a death counts."""
        with self._lock:
            self._forget_timer()
            loads = frozenset(self._loads)
            if not loads or loads == self._marked or self._impossible:
                return
            try:
                self._up.append(self.markers.put_up(self._loads.values(), self._before.recent()))
            except OSError:  # a start without a marker is better than none
                self._impossible = True
                return
            self._marked = loads

    def disarm(self, timer: threading.Thread | None = None) -> None:
        """Take all markers down: this process has survived; not for a timer after which a compilation has begun."""
        with self._lock:
            if timer is not None and timer is not self._timer:
                return
            self._forget_timer()
            up, self._up, self._marked = self._up, [], frozenset()
        # Without the lock: a disk on a network may take its time, and a compilation that begins does not wait for it.
        for own in up:
            own.take_down()

    def sign_out(self) -> None:
        """Remove the roll at the end of this process; that of a parent is not a child's to remove."""
        if self._roll is not None and self._roll.pid == os.getpid():
            self._roll.take_down()
            self._roll = None

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Let a death count for the length of a block, and of the compilation under way, if any."""
        self.arm()
        try:
            yield
        finally:
            self.disarm_unless_compiling()

    def disarm_unless_compiling(self) -> None:
        """Take all markers down, unless a compilation is under way, whose end does so."""
        if not _compiler.compiling():
            self.disarm()

    def disarm_later(self) -> None:
        """Take all markers down after some seconds, unless another compilation begins."""
        with self._lock:
            self._forget_timer()
            if self._up:
                self._timer = threading.Timer(SURVIVAL_SECONDS, lambda: self.disarm(threading.current_thread()))
                self._timer.daemon = True
                with suppress(RuntimeError):  # no thread can be started: the end of the process takes them down
                    self._timer.start()

    def after_fork(self) -> None:
        """Leave the markers to the parent: a child keeps no lock alive."""
        for own in self._up:
            own.leave()
        self._begin()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def guard_beside(folder: str) -> CrashGuard:
    """Give the one guard of this process for the markers beside a cache folder of PyTorch."""
    path = Path(folder) / "megacache" / "starts"
    # Threads that ask at once get the same one, since `setdefault` is atomic.
    return _guards.setdefault(path, CrashGuard(path))


@functools.cache
def install() -> None:
    """Put the markers of this process up and down as it compiles; a normal end takes them down, too."""
    at_shutdown(disarm_all)
    with suppress(CompilerError):
        _compiler.on_compilations(arm_all, disarm_all_later)


def arm_all() -> None:
    """Let a death of this process count from now on: it is about to use what it has loaded."""
    _each(CrashGuard.arm)


def disarm_all_later() -> None:
    """Let it count no longer in some seconds, unless the process uses more by then."""
    _each(CrashGuard.disarm_later)


def guards() -> tuple[CrashGuard, ...]:
    """Give all guards of this process."""
    return tuple(_guards.values())


def disarm_all() -> None:
    """Take the markers of this process down: it ends of its own will; a disk that hangs is not waited for."""

    def finish() -> None:
        _each(CrashGuard.disarm)
        _each(CrashGuard.sign_out)

    try:
        call(finish, deadline=Deadline.after(_END_SECONDS), doing="taking markers down")
    except DeadlineError:
        pass
    except UnavailableError:  # no thread is to be had
        finish()


def _each(do: Callable[[CrashGuard], None]) -> None:
    for guard in tuple(_guards.values()):
        do(guard)


kept(_guards, release=disarm_all)
os.register_at_fork(after_in_child=functools.partial(_each, CrashGuard.after_fork))
