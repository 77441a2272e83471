"""Remember what this process has loaded while it may still die of it, so that the next start leaves that out.

A marker lies beside PyTorch's cache while artifacts are handed over, and from the beginning of a compilation, in which
they are used, until some seconds after its end. Its file is locked by the process, so that the system itself tells
whether a process is gone that left one.
"""

import atexit
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
        self._lock = threading.Lock()
        self._loads: dict[str, Suspect] = {}
        self._descriptor: int | None = None
        self._path: Path | None = None
        self._timer: threading.Timer | None = None

    def suspects(self) -> Mapping[str, Suspect]:
        """Give the bundles that processes had loaded which are gone, by bundle id; old markers are cleared away."""
        return {suspect.bundle: suspect for path in self._abandoned() for suspect in _parsed(path)}

    def add(self, manifests: Iterable[Manifest]) -> None:
        """Note what is being loaded, and put the marker up."""
        for manifest in manifests:
            self._loads[manifest.bundle] = Suspect(
                bundle=manifest.bundle,
                artifacts=tuple((one.kind, one.key) for one in manifest.artifacts),
                files=tuple((one.root, one.path) for one in manifest.files.index),
            )
        self.arm()

    def arm(self) -> None:
        """Put the marker up, if anything was loaded: from now on a death counts."""
        with self._lock:
            self._forget_timer()
            if self._loads and self._descriptor is None:
                self._write()

    def disarm(self) -> None:
        """Take the marker down: this process has survived."""
        with self._lock:
            self._forget_timer()
            if self._descriptor is not None and self._path is not None:
                self._path.unlink(missing_ok=True)
                os.close(self._descriptor)
            self._descriptor = self._path = None

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
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._reset()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _write(self) -> None:
        """Write the marker under a name that nobody looks at before it is locked."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            path = self._folder / f"{uuid.uuid4().hex}.json"
            temporary = path.with_suffix(".tmp")
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            with os.fdopen(os.dup(descriptor), "w") as file:
                json.dump([asdict(load) for load in self._loads.values()], file)
            temporary.replace(path)
        except OSError:  # a start without a marker is better than none
            return
        self._descriptor, self._path = descriptor, path

    def _abandoned(self) -> Iterator[Path]:
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else ():
            with suppress(OSError):  # another process may clear the same away
                if path != self._path and not _is_locked(path):
                    if time.time() - path.stat().st_mtime < SUSPICION_SECONDS:
                        yield path
                    else:
                        path.unlink(missing_ok=True)


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
            return [_suspect(one) for one in json.loads(file.read(_MAX_SIZE))]
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return ()


def _suspect(one: Mapping[str, Any]) -> Suspect:
    """Read one bundle of a marker; it can only accuse what a warm start could have put in place."""
    artifacts, files = (tuple((str(first), str(second)) for first, second in one[part]) for part in _PARTS)
    return Suspect(
        bundle=str(one["bundle"]),
        artifacts=tuple(pair for pair in artifacts if _artifacts_part.is_known(*pair)),
        files=tuple((root, path) for root, path in files if is_portable(path)),
    )


_PARTS = ("artifacts", "files")
_MAX_SIZE = 64 << 20
_starts: dict[Path, Starts] = {}


def beside(folder: str) -> Starts:
    """Give the one object of this process for the markers beside a cache folder of PyTorch."""
    path = Path(folder) / "megacache" / "starts"
    return _starts.setdefault(path, Starts(path))


@functools.cache
def hear() -> None:
    """Put the markers of this process up and down as it compiles; a normal end takes them down, too."""
    atexit.register(disarm_all)
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
