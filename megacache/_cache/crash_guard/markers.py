"""Markers: the files by which a start learns what processes had loaded when they died of it.

A marker is locked by its process, so that the system itself tells whether a process is gone that left one. It holds
what the process had loaded, and what an earlier one had loaded that had died before it began. What stands in both
places is suspected: two processes in a row have ended with it. Ranks that are stopped together are one death, not
eight.

Beside the markers lie rolls: each names the bundles that a process has loaded, and is locked as long as that lives, or
any that was forked from it.
"""

import fcntl
import json
import os
import re
import stat
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from megacache._bundle import Manifest, is_known_artifact, is_portable_file
from megacache._runtime import inner_folder, temporary_beside

SUSPICION_SECONDS = 3600.0
"""A bundle is left out for so long: what was no fault of its own costs no more than that."""
_PARTS = ("artifacts", "files")
_MAX_SIZE = 64 << 20
_SUFFIX = ".json"
_CLEARED = f".cleared{_SUFFIX}"
_FORM = re.compile(r"[0-9a-f]{32}(?:\.cleared)?\.json")
_ROLL_SUFFIX = ".loaded"
_ROLL = re.compile(rf"[0-9a-f]{{32}}\{_ROLL_SUFFIX}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Suspect:
    """A bundle that a process had loaded when it died."""

    bundle: str
    artifacts: tuple[tuple[str, str], ...]
    """Kind and key of each."""
    files: tuple[tuple[str, str], ...]
    """Root and path of each."""

    @classmethod
    def of(cls, manifest: Manifest) -> Self:
        """Take what a marker says of a bundle."""
        return cls(
            bundle=manifest.bundle,
            artifacts=tuple((one.kind, one.key) for one in manifest.artifacts),
            files=tuple((one.root, one.path) for one in manifest.files.index),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Deaths:
    """What processes had loaded that died, as their markers told at one moment."""

    bundles: frozenset[str] = frozenset()
    """Ids of the bundles that any of them had loaded."""
    suspects: Mapping[str, Suspect] = field(default_factory=dict)
    """The bundles that two of them in a row had loaded, by id."""
    at: float = field(default_factory=time.time)

    def recent(self) -> frozenset[str]:
        """Give the ids of the bundles, unless that moment is too long ago."""
        return self.bundles if time.time() - self.at < SUSPICION_SECONDS else frozenset()


class Markers:
    """The markers in one folder, those of this process among them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def deaths(self) -> "Deaths":
        """Read what processes had loaded that are gone."""
        with self._listed() as listed:
            markers = list(_abandoned(listed))
        return Deaths(
            bundles=frozenset(bundle for marker in markers for bundle in marker.loads),
            suspects={one.bundle: one for marker in markers for one in marker.suspects},
        )

    def loaded_by_the_living(self) -> frozenset[str]:
        """Give the ids of the bundles that processes have loaded, or are loading, that live, this one among them."""
        with self._listed(_ROLL) as rolls:
            return frozenset(bundle for path in rolls for bundle in _roll_of_the_living(path))

    def sign_in(self) -> "OwnMarker":
        """Make an empty roll of what this process loads; raise `OSError`."""
        name = f"{uuid.uuid4().hex}{_ROLL_SUFFIX}"
        with self._inside(create=True) as folder:
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return OwnMarker(path=self.folder / name, descriptor=descriptor)

    def clear_old(self) -> None:
        """Remove markers that are too old to count, and the rolls of processes that are gone."""
        with self._listed(_ROLL) as rolls:
            for path in rolls:
                with suppress(OSError), _opened(path) as descriptor:
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    if _is_own(os.fstat(descriptor)):
                        path.unlink()
        with self._listed() as listed:
            for path in listed:
                with suppress(OSError), _opened(path) as descriptor:
                    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                    found = os.fstat(descriptor)
                    if _is_own(found) and not _is_recent(found):
                        path.unlink()

    def to_clear(self, loaded: Collection[str] = ()) -> Iterator[Suspect]:
        """Give the suspects whose artifacts and files still lie in PyTorch's folders.

        A marker is noted as cleared when the next one is asked for, unless a living process has loaded any of them.
        Two processes may do the same work before that, which does no harm; none goes on while it is only begun.
        """
        with self._listed() as listed:
            for marker in _abandoned(listed):
                if marker.suspects and not marker.path.name.endswith(_CLEARED):
                    yield from marker.suspects
                    if any(suspect.bundle in loaded for suspect in marker.suspects):
                        continue
                    with suppress(OSError):  # another process was faster, or nothing may be written here
                        marker.path.rename(marker.path.with_suffix(_CLEARED))

    def is_rid_of(self, bundle: str) -> bool:
        """Tell whether `note_riddance` was called, for the folder that the markers are about, since it was loaded."""
        with suppress(OSError), self._inside() as folder:
            return os.path.lexists(folder / _note(bundle))
        return False

    def note_riddance(self, bundle: str) -> None:
        """Note that what a bundle in quarantine may have left in PyTorch's folders is gone."""
        with suppress(OSError), self._inside(create=True) as folder:  # without it, the next start looks again
            (folder / _note(bundle)).touch(exist_ok=False)

    def forget_riddance(self, bundle: str) -> None:
        """Take that note away: the bundle is loaded again."""
        with suppress(OSError), self._inside() as folder:
            (folder / _note(bundle)).unlink()

    def put_up(self, loads: Iterable[Suspect], before: Iterable[str]) -> "OwnMarker":
        """Write a marker of this process under a name that nobody looks at before it is locked; raise `OSError`.

        `before` are the ids of the bundles that an earlier process had loaded that died.
        """
        named = {"again": sorted(before), "loads": [asdict(one) for one in loads]}
        name = f"{uuid.uuid4().hex}{_SUFFIX}"
        with self._inside(create=True) as folder, temporary_beside(folder / name) as temporary:
            own = OwnMarker(path=self.folder / name, descriptor=os.open(temporary, os.O_WRONLY))
            try:
                os.fchmod(own.descriptor, 0o600)
                fcntl.flock(own.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                os.write(own.descriptor, f"{json.dumps(named)}\n".encode())
                temporary.replace(folder / name)
            except OSError:
                own.take_down()
                raise
        return own

    @contextmanager
    def _listed(self, form: re.Pattern[str] = _FORM) -> Iterator[Sequence[Path]]:
        """List what may be markers, or rolls; none where the folder cannot be read, or is not this user's."""
        with ExitStack() as stack:
            listed: Sequence[Path] = ()
            with suppress(OSError):
                folder = stack.enter_context(self._inside())
                listed = sorted(path for path in folder.iterdir() if form.fullmatch(path.name))
            yield listed

    def _inside(self, *, create: bool = False) -> AbstractContextManager[Path]:
        """Enter the folder, which lies two levels below PyTorch's own; raise `OSError` where it is not this user's."""
        return inner_folder(self.folder.parents[1], *self.folder.parts[-2:], create=create, private=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnMarker:
    """A marker, or a roll, of this process, which holds its lock."""

    path: Path
    descriptor: int
    """Holds the lock."""
    pid: int = field(default_factory=os.getpid)
    """Of the process that made it."""

    def take_down(self) -> None:
        """Remove it."""
        with suppress(OSError):
            self.path.unlink()
        self.leave()

    def leave(self) -> None:
        """Leave it where it is, and its lock to the process from which this one was forked."""
        with suppress(OSError):  # as a network's disk may tell at the end what it could not write
            os.close(self.descriptor)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marker:
    """What a process has left that is gone."""

    path: Path
    loads: Sequence[str] = ()
    """Ids of the bundles that it had loaded."""
    suspects: Sequence[Suspect] = ()
    """Those of them that an earlier process had loaded as well that died."""


def _note(bundle: str) -> str:
    return f"{bundle}.gone"


def _abandoned(listed: Iterable[Path]) -> Iterator[_Marker]:
    return filter(None, map(_found, listed))


def _roll_of_the_living(path: Path) -> Sequence[str]:
    """Read what a process has loaded; nothing if it is gone."""
    try:
        with _opened(path) as descriptor:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return os.read(descriptor, _MAX_SIZE).decode(errors="replace").split()
    except OSError:
        pass
    return ()


def _found(listed: Path) -> _Marker | None:
    """Read a marker that was listed, under the name that it has when another process has cleared it since."""
    for path in (listed, listed.with_suffix(_CLEARED)):
        with suppress(FileNotFoundError):
            return _read(path)
    return None


def _read(path: Path) -> _Marker | None:
    """Read a marker; None if its process lives, if it is too old, or if that cannot be told.

    Raises `FileNotFoundError`, and no other `OSError`.
    """
    try:
        with _opened(path) as descriptor:
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            found = os.fstat(descriptor)
            return _parsed(path, descriptor) if _is_own(found) and _is_recent(found) else None
    except FileNotFoundError:
        raise
    except OSError:
        return None


def _is_own(found: os.stat_result) -> bool:
    """Tell whether a file may be a marker of this user: what another one says is not acted upon."""
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()


def _is_recent(found: os.stat_result) -> bool:
    """Tell whether a marker still counts; a time that lies an hour in the future is as far away as one in the past."""
    return abs(time.time() - found.st_mtime) < SUSPICION_SECONDS


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open what may be a marker; a link is not followed, and nobody waits for a pipe."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _parsed(path: Path, descriptor: int) -> _Marker:
    """Parse a marker; one that is not whole accuses nobody."""
    try:
        with os.fdopen(os.dup(descriptor), "rb") as file:
            if os.fstat(descriptor).st_size <= _MAX_SIZE:
                marker = json.loads(file.readline(_MAX_SIZE))
                loads, again = [_suspect(one) for one in marker["loads"]], frozenset(map(str, marker["again"]))
                suspects = [one for one in loads if one.bundle in again]
                return _Marker(path=path, loads=[one.bundle for one in loads], suspects=suspects)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        pass
    return _Marker(path=path)


def _suspect(one: Mapping[str, Any]) -> Suspect:
    """Read one bundle of a marker; it can only accuse what a warm start could have put in place."""
    artifacts, files = (tuple((str(first), str(second)) for first, second in one[part]) for part in _PARTS)
    return Suspect(
        bundle=str(one["bundle"]),
        artifacts=tuple(pair for pair in artifacts if is_known_artifact(*pair)),
        files=tuple((root, path) for root, path in files if is_portable_file(path, root)),
    )
