"""Markers: the files by which a start learns what earlier processes had loaded when they died.

A marker names what its process has loaded, and which of these bundles another process had loaded that died before. A
bundle that stands in both lists is suspected: two processes in a row ended with it. Ranks that are stopped together
have not seen one another die: they count as one death.
"""

import json
import os
import re
import time
import uuid
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Self

from megacache._bundle import Manifest, is_known_artifact, is_portable_file
from megacache._cache.crash_guard.locked_files import Folder, OwnFile, check_abandoned, is_own, opened
from megacache._runtime import temporary_beside

SUSPICION_SECONDS = 3600.0
"""A bundle is left out for so long: if it was not at fault, it costs no more than that."""
_PARTS = ("artifacts", "files")
_MAX_SIZE = 64 << 20
_SUFFIX = ".json"
_CLEARED = f".cleared{_SUFFIX}"
_FORM = re.compile(r"[0-9a-f]{32}(?:\.cleared)?\.json")


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
    """What processes that died had loaded, as their markers say at one moment."""

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
        self._folder = Folder(folder)

    def deaths(self) -> Deaths:
        """Read what processes that are gone had loaded."""
        with self._folder.listed(_FORM) as listed:
            markers = list(_abandoned(listed))
        return Deaths(
            bundles=frozenset(bundle for marker in markers for bundle in marker.loads),
            suspects={one.bundle: one for marker in markers for one in marker.suspects},
        )

    def put_up(self, loads: Iterable[Suspect], before: Iterable[str]) -> OwnFile:
        """Write a marker of this process; raise `OSError`.

        `before` are the ids of the bundles that an earlier process had loaded that died.
        """
        named = {"again": sorted(before), "loads": [asdict(one) for one in loads]}
        name = f"{uuid.uuid4().hex}{_SUFFIX}"
        # It is locked before it has its name: another start would take an unlocked marker for that of a dead process.
        with self._folder.inside(create=True) as folder, temporary_beside(folder / name) as temporary:
            own = OwnFile(path=self._folder.path / name, descriptor=os.open(temporary, os.O_WRONLY))
            try:
                os.fchmod(own.descriptor, 0o600)
                own.lock()
                os.write(own.descriptor, f"{json.dumps(named)}\n".encode())
                temporary.replace(folder / name)
            except OSError:
                own.take_down()
                raise
        return own

    def to_clear(self, loaded: Collection[str] = ()) -> Iterator[Suspect]:
        """Give the suspects whose artifacts and files still lie in PyTorch's folders.

        A marker is noted as cleared when the next one is asked for, unless a living process has `loaded` one of its
        suspects. Two processes may clear the same one at once, which does no harm.
        """
        with self._folder.listed(_FORM) as listed:
            for marker in _abandoned(listed):
                if marker.suspects and not marker.path.name.endswith(_CLEARED):
                    yield from marker.suspects
                    if any(suspect.bundle in loaded for suspect in marker.suspects):
                        continue
                    with suppress(OSError):  # another process was faster, or nothing may be written here
                        marker.path.rename(marker.path.with_suffix(_CLEARED))

    def clear_old(self) -> None:
        """Remove markers that are too old to count."""
        with self._folder.listed(_FORM) as listed:
            for path in listed:
                with suppress(OSError), opened(path) as descriptor:
                    found = check_abandoned(descriptor)
                    if is_own(found) and not _is_recent(found):
                        path.unlink()


@dataclass(frozen=True, slots=True, kw_only=True)
class _Marker:
    """What a process that is gone has left."""

    path: Path
    loads: Sequence[str] = ()
    """Ids of the bundles that it had loaded."""
    suspects: Sequence[Suspect] = ()
    """Those of them that an earlier process that died had loaded as well."""


def _abandoned(listed: Iterable[Path]) -> Iterator[_Marker]:
    return filter(None, map(_found, listed))


def _found(listed: Path) -> _Marker | None:
    """Read a marker that was listed, under its new name if another process has cleared it since."""
    for path in (listed, listed.with_suffix(_CLEARED)):
        with suppress(FileNotFoundError):
            return _read(path)
    return None


def _read(path: Path) -> _Marker | None:
    """Read a marker; None if its process lives, if it is too old, or if that cannot be told.

    Raises `FileNotFoundError`, and no other `OSError`.
    """
    try:
        with opened(path) as descriptor:
            found = check_abandoned(descriptor)
            return _parsed(path, descriptor) if is_own(found) and _is_recent(found) else None
    except FileNotFoundError:
        raise
    except OSError:
        return None


def _is_recent(found: os.stat_result) -> bool:
    # A clock that is wrong must not leave a bundle out for long: a time in the future counts as one in the past.
    return abs(time.time() - found.st_mtime) < SUSPICION_SECONDS


def _parsed(path: Path, descriptor: int) -> _Marker:
    try:
        # A copy, for the file would close the descriptor of the caller.
        with os.fdopen(os.dup(descriptor), "rb") as file:
            if os.fstat(descriptor).st_size <= _MAX_SIZE:
                marker = json.loads(file.readline(_MAX_SIZE))
                loads, again = [_suspect(one) for one in marker["loads"]], frozenset(map(str, marker["again"]))
                suspects = [one for one in loads if one.bundle in again]
                return _Marker(path=path, loads=[one.bundle for one in loads], suspects=suspects)
    except (OSError, ValueError, TypeError, KeyError, RecursionError):  # one that is not whole accuses nobody
        pass
    return _Marker(path=path)


def _suspect(one: Mapping[str, Any]) -> Suspect:
    # Whatever a marker says, nothing is removed but what a warm start could have put in place.
    artifacts, files = (tuple((str(first), str(second)) for first, second in one[part]) for part in _PARTS)
    return Suspect(
        bundle=str(one["bundle"]),
        artifacts=tuple(pair for pair in artifacts if is_known_artifact(*pair)),
        files=tuple((root, path) for root, path in files if is_portable_file(path, root)),
    )
