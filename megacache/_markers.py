"""Markers: the files by which a start learns what processes had loaded when they died of it.

A marker is locked by its process, so that the system itself tells whether a process is gone that left one. Its first
line holds what the process had loaded; what stands after it is why the process died. Where nothing does, the marker
accuses nobody, unless it says that it is blind to reasons.
"""

import fcntl
import json
import os
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

from megacache import _artifacts_part
from megacache._files import is_portable
from megacache._manifest import Manifest
from megacache._temporary import temporary_beside

SUSPICION_SECONDS = 3600.0
"""A bundle is left out for so long: what was no fault of its own costs no more than that."""
_PARTS = ("artifacts", "files")
_MAX_SIZE = 64 << 20
_CLEARED = ".cleared.json"


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
        """Take what a bundle would be accused of."""
        return cls(
            bundle=manifest.bundle,
            artifacts=tuple((one.kind, one.key) for one in manifest.artifacts),
            files=tuple((one.root, one.path) for one in manifest.files.index),
        )


class Markers:
    """The markers in one folder, that of this process among them."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._path: Path | None = None
        self._descriptor: int | None = None

    @property
    def is_up(self) -> bool:
        """True if this process has put up its own."""
        return self._descriptor is not None

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

    def put_up(self, loads: Iterable[Suspect], *, blind: bool) -> int:
        """Write the marker of this process under a name that nobody looks at before it is locked; raise `OSError`.

        Give the descriptor to write to why the process dies; with `blind`, nobody will.
        """
        path = self._folder / f"{uuid.uuid4().hex}.json"
        self._folder.mkdir(parents=True, exist_ok=True)
        try:
            with temporary_beside(path) as temporary:
                self._path, self._descriptor = path, os.open(temporary, os.O_WRONLY)
                os.fchmod(self._descriptor, 0o600)
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                text = json.dumps({"blind": blind, "loads": [asdict(one) for one in loads]})
                os.write(self._descriptor, f"{text}\n".encode())
                temporary.replace(path)
        except OSError:
            self.take_down()
            raise
        return self._descriptor

    def take_down(self) -> None:
        """Remove the marker of this process, if there is one."""
        if self._path is not None:
            with suppress(OSError):
                self._path.unlink()
        self.leave()

    def leave(self) -> None:
        """Leave the marker where it is, and its lock to the process from which this one was forked."""
        if self._descriptor is not None:
            os.close(self._descriptor)
        self._descriptor = self._path = None

    def _abandoned(self) -> Iterator[Path]:
        for path in sorted(self._folder.glob("*.json")) if self._folder.is_dir() else ():
            with suppress(OSError):  # another process may have cleared it away
                if path != self._path and not _is_locked(path):
                    if time.time() - path.stat().st_mtime < SUSPICION_SECONDS:
                        yield path
                    else:
                        path.unlink()


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
            first, _, reason = file.read(_MAX_SIZE).partition(b"\n")
            marker = json.loads(first)
            return [_suspect(one) for one in marker["loads"]] if reason or marker["blind"] else ()
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
