"""Rolls: each names the bundles that a process has loaded, and is locked as long as that process lives.

A child that was forked from the process holds the lock as well, for it uses the same libraries.
"""

import os
import re
import uuid
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from megacache._cache.crash_guard.locked_files import Folder, OwnFile, check_abandoned, is_own, opened

_SUFFIX = ".loaded"
_FORM = re.compile(rf"[0-9a-f]{{32}}\{_SUFFIX}")
_MAX_SIZE = 64 << 20


class Rolls:
    """The rolls in one folder, that of this process among them."""

    def __init__(self, folder: Path) -> None:
        self._folder = Folder(folder)

    def begin(self) -> OwnFile:
        """Make an empty roll of what this process loads; raise `OSError`."""
        name = f"{uuid.uuid4().hex}{_SUFFIX}"
        with self._folder.inside(create=True) as folder:
            descriptor = os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND, 0o600)
        own = OwnFile(path=self._folder.path / name, descriptor=descriptor)
        own.lock()
        return own

    def loaded_by_the_living(self) -> frozenset[str]:
        """Give the ids of the bundles that living processes have loaded, or are loading, this one among them."""
        with self._folder.listed(_FORM) as rolls:
            return frozenset(bundle for path in rolls for bundle in _bundles_of_the_living(path))

    def clear_old(self) -> None:
        """Remove the rolls of processes that are gone."""
        with self._folder.listed(_FORM) as rolls:
            for path in rolls:
                with suppress(OSError), opened(path) as descriptor:
                    if is_own(check_abandoned(descriptor)):
                        path.unlink()


def _bundles_of_the_living(path: Path) -> Sequence[str]:
    try:
        with opened(path) as descriptor:
            try:
                check_abandoned(descriptor)
            except BlockingIOError:  # it is locked: its process lives
                return os.read(descriptor, _MAX_SIZE).decode(errors="replace").split()
    except OSError:
        pass
    return ()
