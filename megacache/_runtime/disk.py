"""Files on a local or mounted disk: written whole, created once and durably, listed without overlooking a fault."""

import errno
import os
import re
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from megacache._runtime.process import kept

_NAME = re.compile(r"\.(?:.+\.)?[0-9a-f]{32}\.tmp")
_ABANDONED_SECONDS = 24 * 3600.0

_swept: set[tuple[int, int]] = kept(set())
"""Device and number of each folder in which this process has looked for files that were left behind."""

# By link(2), `EPERM` is for a file system without hard links; the others are for a call that is not supported.
_NO_LINKS = frozenset({errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EOPNOTSUPP})


@contextmanager
def inner_folder(base: Path, *names: str, create: bool = False, private: bool = False) -> Iterator[Path]:
    """Give a folder some levels below another, by a path that leads there even if a folder on the way is replaced.

    Raises `OSError` where the way goes through a link, or through a folder that belongs neither to this user, nor to
    root, nor to the owner of `base`, which may itself be a link; if `private`, also where others may write to one.
    """
    if create:
        base.mkdir(parents=True, exist_ok=True)
    # With `O_PATH`, a folder need not be readable to be passed through.
    descriptor = os.open(base, os.O_PATH | os.O_DIRECTORY)
    try:
        # Root may write anywhere, and the owner of `base` may replace all in it: their folders add no danger.
        owners = {os.geteuid(), 0, os.fstat(descriptor).st_uid}
        for name in names:
            if create:
                with suppress(FileExistsError):
                    os.mkdir(name, 0o700 if private else 0o777, dir_fd=descriptor)
            inner = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = inner
            found = os.fstat(descriptor)
            if found.st_uid not in owners or (private and found.st_mode & stat.S_IWOTH):
                raise PermissionError(errno.EPERM, "folder of another user", name)
        # This path follows the descriptor, and not the names of the folders.
        yield Path("/proc/self/fd", str(descriptor))
    finally:
        os.close(descriptor)


@contextmanager
def temporary_beside(path: Path) -> Iterator[Path]:
    """Give an empty file beside another, to be filled and renamed; it is removed if it was not renamed.

    A writer that is killed leaves its file. The first that a process writes in a folder removes those which are older
    than a day.
    """
    temporary = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        temporary.touch(exist_ok=False)
        found = path.parent.stat()
        if (found.st_dev, found.st_ino) not in _swept:
            _swept.add((found.st_dev, found.st_ino))
            # By the clock of the disk, which may be that of another host.
            _sweep(path.parent, temporary.stat().st_mtime - _ABANDONED_SECONDS)
        yield temporary
    finally:
        temporary.unlink(missing_ok=True)


def write_whole(path: Path, data: bytes) -> None:
    """Write a file so that nobody sees half of it; a file of that name is replaced."""
    with temporary_beside(path) as temporary:
        temporary.write_bytes(data)
        temporary.replace(path)


def _sweep(folder: Path, before: float) -> None:
    with suppress(OSError):
        for path in folder.iterdir():
            if _NAME.fullmatch(path.name) and path.lstat().st_mtime < before:
                path.unlink(missing_ok=True)


def create_file(path: Path, data: bytes) -> None:
    """Write a file under a temporary name and link it to its own; raise `FileExistsError` if the name is taken.

    On a mount without hard links the file is renamed into place instead, which is whole but not exclusive.
    """
    # fsspec's own exclusive mode writes in place: readers see half a file, and two writers that race may both win.
    if path.exists():  # spares the writing; the link decides
        raise FileExistsError(path)
    _make_folder(path.parent)
    with temporary_beside(path) as temporary:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            # The content reaches the disk before its name does: after a power cut, no name leads to half a file.
            os.fsync(file.fileno())
        _publish(temporary, path)
    # A new name survives a power cut once its folder is on the disk.
    _sync_folder(path.parent)


def list_files(folder: Path) -> Iterator[tuple[str, int, float]]:
    """Find all regular files below a folder: relative path, size, and time; without the folder there is none.

    Raises `OSError` for a folder that cannot be read, which fsspec takes for an empty one.
    """
    for place, _, names in os.walk(folder, onerror=_raise_unless_missing):
        for name in names:
            path = Path(place, name)
            with suppress(FileNotFoundError):
                found = path.lstat()
                if stat.S_ISREG(found.st_mode):
                    yield path.relative_to(folder).as_posix(), found.st_size, found.st_mtime


def _raise_unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _make_folder(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except FileExistsError as error:  # a file stands where the folder should; the caller's own name is not taken
        raise NotADirectoryError(folder) from error


def _publish(temporary: Path, path: Path) -> None:
    try:
        os.link(temporary, path)
    except OSError as error:
        if temporary.stat().st_nlink > 1:  # NFS may report a failure for a link that it made
            return
        if error.errno not in _NO_LINKS:
            raise
        temporary.replace(path)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
