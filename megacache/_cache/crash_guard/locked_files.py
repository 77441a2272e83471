"""Files that a process holds locked for as long as it lives, in a folder that is this user's.

The lock tells whether the process is gone: the system releases it, however the process ended.
"""

import fcntl
import os
import re
import stat
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from megacache._runtime import inner_folder


@dataclass(frozen=True, slots=True, kw_only=True)
class OwnFile:
    """A file that this process has made and holds locked."""

    path: Path
    descriptor: int
    """Holds the lock."""
    pid: int = field(default_factory=os.getpid)
    """Of the process that made it."""

    def lock(self) -> None:
        """Take the lock; raise `OSError`."""
        # Not `lockf`: its lock would go once this process closes any descriptor of the file, as after reading it.
        fcntl.flock(self.descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)

    def take_down(self) -> None:
        """Remove it."""
        with suppress(OSError):
            self.path.unlink()
        self.leave()

    def leave(self) -> None:
        """Leave it where it is, and its lock to the process from which this one was forked."""
        with suppress(OSError):  # a network disk may report here what it could not write
            os.close(self.descriptor)


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder two levels below PyTorch's own, which is not trusted before each use."""

    path: Path

    def inside(self, *, create: bool = False) -> AbstractContextManager[Path]:
        """Open the folder; raise `OSError` where it is not this user's."""
        return inner_folder(self.path.parents[1], *self.path.parts[-2:], create=create, private=True)

    @contextmanager
    def listed(self, form: re.Pattern[str]) -> Iterator[Sequence[Path]]:
        """List the files whose names have a form; none where the folder cannot be read, or is not this user's."""
        with ExitStack() as stack:
            found: Sequence[Path] = ()
            with suppress(OSError):
                folder = stack.enter_context(self.inside())
                found = sorted(path for path in folder.iterdir() if form.fullmatch(path.name))
            yield found


@contextmanager
def opened(path: Path) -> Iterator[int]:
    """Open a file that somebody else may have put there; a link is not followed, and a pipe is not waited for."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def check_abandoned(descriptor: int) -> os.stat_result:
    """Describe a file whose process is gone; raise `BlockingIOError` while the process lives."""
    # A shared lock: two starts that look at one file at once do not take each other for its process.
    fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    return os.fstat(descriptor)


def is_own(found: os.stat_result) -> bool:
    """Tell whether a file is this user's: what another one says is not acted upon."""
    return stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid()
