"""Files that are written under a hidden name first, so that nobody sees half of one."""

import re
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_NAME = re.compile(r"\.(?:.+\.)?[0-9a-f]{32}\.tmp")
_ABANDONED_SECONDS = 24 * 3600.0

_swept: set[Path] = set()


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Give an empty file beside another, to be filled and given its name; what is left of it is removed.

    A writer that is killed leaves its file. The first that a process writes in a folder removes those which are older
    than a day.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.touch(exist_ok=False)
        if path.parent not in _swept:
            _swept.add(path.parent)
            # By the clock of the disk, which may be that of another host.
            _sweep(path.parent, temporary.stat().st_mtime - _ABANDONED_SECONDS)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that nobody sees half of it; one that has the name already is replaced."""
    with temporary_beside(path) as temporary:
        temporary.write_bytes(data)
        temporary.replace(path)


def _sweep(folder: Path, before: float) -> None:
    with suppress(OSError):
        for path in folder.iterdir():
            if _NAME.fullmatch(path.name) and path.lstat().st_mtime < before:
                path.unlink(missing_ok=True)
