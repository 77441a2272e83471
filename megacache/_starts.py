"""Remember what this process has loaded while it may still die of it, so that the next start leaves that out.

A marker lies beside PyTorch's cache while artifacts are handed over, and from the beginning of a compilation, in which
they are unpickled, until some seconds after its end, when what they hold has been called. Its file is locked by the
process, so that the system itself tells whether a process is gone that left one. Python's faulthandler writes into it
if the process dies of a fault of its own: one that was killed from outside accuses nobody. Where the program uses the
faulthandler itself, every death counts.
"""

import faulthandler
import fcntl
import functools
import json
import os
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from megacache import _artifacts_part, _compiler
from megacache._files import is_portable
from megacache._manifest import Manifest
from megacache._shutdown import at_shutdown
from megacache.errors import CompilerError

SUSPICION_SECONDS = 3600.0
"""A bundle is left out for so long: what was no fault of its own costs no more than that."""
SURVIVAL_SECONDS = 10.0
"""A process that lives for so long after a compilation has survived what was loaded for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A bundle that a process had loaded when it died."""

    bundle: str
    artifacts: tuple[tuple[str, str], ...]
    """Kind and key of each."""
    files: tuple[tuple[str, str], ...]
    """Root and path of each."""


class Starts:
    """The markers in one folder, that of this process among them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._reset()

    def _reset(self) -> None:
        self._lock = threading.RLock()  # a signal's handler may come to it in the same thread
        self._loads: dict[str, Suspect] = {}
        self._descriptor: int | None = None
        self._path: Path | None = None
        self._timer: threading.Timer | None = None
        self._listening: _Listening | None = None
        self._impossible = False

    def suspects(self) -> Mapping[str, Suspect]:
        """Give the bundles that processes had loaded which are gone, by bundle id; old markers are cleared away."""
        return {suspect.bundle: suspect for path in self._abandoned() for suspect in _parsed(path)}

    def to_clear(self) -> Iterator[Suspect]:
        """Give, once for all processes, the suspects whose artifacts and files still lie in PyTorch's folders."""
        for path in self._abandoned():
            if not path.name.endswith(_CLEARED):
                suspects = tuple(_parsed(path))
                with suppress(OSError):  # another process has taken it on
                    path.rename(path.with_suffix(_CLEARED))
                    yield from suspects

    def add(self, manifests: Iterable[Manifest]) -> None:
        """Note what is being loaded."""
        for manifest in manifests:
            self._loads[manifest.bundle] = Suspect(
                bundle=manifest.bundle,
                artifacts=tuple((one.kind, one.key) for one in manifest.artifacts),
                files=tuple((one.root, one.path) for one in manifest.files.index),
            )

    def arm(self) -> None:
        """Put the marker up, if anything was loaded: from now on a death counts."""
        with self._lock:
            self._forget_timer()
            if self._loads and self._descriptor is None and not self._impossible:
                self._write()

    def disarm(self) -> None:
        """Take the marker down: this process has survived."""
        with self._lock:
            self._forget_timer()
            if self._descriptor is not None and self._path is not None:
                with suppress(OSError):
                    self._path.unlink()
                self._let_go(self._descriptor)
            self._descriptor = self._path = None

    @contextmanager
    def armed(self) -> Iterator[None]:
        """Let a death count for the length of a block."""
        self.arm()
        try:
            yield
        finally:
            self.disarm()

    def disarm_later(self) -> None:
        """Take the marker down after some seconds."""
        with self._lock:
            self._forget_timer()
            if self._descriptor is not None:
                self._timer = threading.Timer(SURVIVAL_SECONDS, self.disarm)
                self._timer.daemon = True
                self._timer.start()

    def after_fork(self) -> None:
        """Leave the marker to the parent: a child keeps no lock alive."""
        loads = self._loads
        if self._descriptor is not None:
            self._let_go(self._descriptor)
        self._reset()
        self._loads = loads

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self) -> None:
        """Write the marker under a name that nobody looks at before it is locked."""
        path = self._folder / f"{uuid.uuid4().hex}.json"
        temporary = path.with_suffix(".tmp")
        blind = faulthandler.is_enabled()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._path = path
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            text = json.dumps({"blind": blind, "loads": [asdict(one) for one in self._loads.values()]})
            os.write(self._descriptor, f"{text}\n".encode())
            temporary.replace(path)
        except OSError:  # a start without a marker is better than none
            self._impossible = True
            with suppress(OSError):
                temporary.unlink()
            self.disarm()
        else:
            self._listening = None if blind else _Listening(self._descriptor)

    def _let_go(self, descriptor: int) -> None:
        if self._listening is not None:
            self._listening.end()
            self._listening = None
        os.close(descriptor)

    def _abandoned(self) -> Iterator[Path]:
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else ():
            with suppress(OSError):  # another process may have cleared it away
                if path != self._path and not _is_locked(path):
                    if time.time() - path.stat().st_mtime < SUSPICION_SECONDS:
                        yield path
                    else:
                        path.unlink()


class _Listening:
    """Lets Python write into a file if the process dies of a fault, until the program wants that for itself."""

    def __init__(self, descriptor: int) -> None:
        self._enable = faulthandler.enable
        self._taken = False
        self._enable(file=descriptor, all_threads=False)
        faulthandler.enable = self._give

    def end(self) -> None:
        """Leave everything as it was, or as the program has set it meanwhile."""
        faulthandler.enable = self._enable
        if not self._taken:
            faulthandler.disable()

    def _give(self, *args: Any, **options: Any) -> None:
        self._taken = True
        self._enable(*args, **options)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open what may be a marker; a link is not followed, and nobody waits for a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _is_locked(path: Path) -> bool:
    """Tell whether the process that left a marker lives; what cannot be told is taken for life."""
    try:
        with _opened(path) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            return not stat.S_ISREG(os.fstat(descriptor).st_mode)
    except OSError:
        return True


def _parsed(path: Path) -> Sequence[Suspect]:
    """Read a marker; one that is not whole accuses nobody."""
    try:
        with _opened(path) as descriptor, os.fdopen(os.dup(descriptor), "rb") as file:
            if os.fstat(descriptor).st_size > _MAX_SIZE:
                return ()
            first, _, told = file.read(_MAX_SIZE).partition(b"\n")
            marker = json.loads(first)
            return [_suspect(one) for one in marker["loads"]] if told or marker["blind"] else ()
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ()


def _suspect(one: Mapping[str, Any]) -> Suspect:
    """Read one bundle of a marker; it can only accuse what a warm start could have put in place."""
    artifacts, files = (tuple((str(first), str(second)) for first, second in one[part]) for part in _PARTS)
    return Suspect(
        bundle=str(one["bundle"]),
        artifacts=tuple(pair for pair in artifacts if _artifacts_part.is_known(*pair)),
        files=tuple((root, path) for root, path in files if is_portable(path, root)),
    )


_PARTS = ("artifacts", "files")
_MAX_SIZE = 64 << 20
_CLEARED = ".cleared.json"
_starts: dict[Path, Starts] = {}


def beside(folder: str) -> Starts:
    """Give the one object of this process for the markers beside a cache folder of PyTorch."""
    path = Path(folder) / "megacache" / "starts"
    return _starts.setdefault(path, Starts(path))


@functools.cache
def hear() -> None:
    """Put the markers of this process up and down as it compiles; a normal end takes them down, too."""
    at_shutdown(disarm_all)
    with suppress(CompilerError):
        _compiler.on_compilations(
            lambda: _each(Starts.arm),
            lambda: _each(Starts.disarm_later),
        )


def disarm_all() -> None:
    """Take the markers of this process down: it ends of its own will."""
    _each(Starts.disarm)


def _each(do: Callable[[Starts], None]) -> None:
    for starts in tuple(_starts.values()):
        do(starts)


def _after_fork() -> None:
    _each(Starts.after_fork)


os.register_at_fork(after_in_child=_after_fork)
