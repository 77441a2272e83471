"""Chunks that processes of this node have downloaded, in a folder that they share, so that each comes once.

Every byte is proved when it is read, as if it came from the store. Whatever is wrong with the folder or a file in it
costs a download, and is no fault: the disk may be full, read-only, slow or somebody else's.
"""

import logging
import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from megacache._bundle import ChunkRef
from megacache._runtime import Deadline, inner_folder, write_whole
from megacache._settings import Settings, chunk_folder
from megacache._store import is_near
from megacache.errors import BundleError, SettingsError, UnavailableError

_log = logging.getLogger("megacache")

_POLL_SECONDS = 0.02
_PATIENCE = 0.5
"""How much of the time that is left goes into waiting for another process: enough stays to download without it."""
_LESS = 0.9
"""How much of its limit a folder that was full is left with, so that not every chunk after it makes room for itself."""
_UNSEEN = 16
"""The part of the free room after which a process looks again: others fill it at the same time."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeContents:
    """What the folder holds."""

    chunks: int
    size: int
    """Bytes of all files."""
    oldest: float | None
    """When the chunk that has been left alone longest was last used, in seconds since 1970; None without chunks."""
    newest: float | None
    """When the last chunk was used."""


class NodeCache:
    """The folder of chunks of this node, as one call sees it."""

    def __init__(self, folder: Path, most: int) -> None:
        """Name a folder, whose parent is trusted to be there for this user, and the bytes that it may hold."""
        self.folder = folder
        self.most = most
        self._counting = threading.Lock()
        self._unseen = 0

    @classmethod
    def of(cls, url: str, settings: Settings) -> "NodeCache | None":
        """Give the cache for a store; None where it is switched off, or the store is as near as the cache would be."""
        if not settings.node_max_bytes or is_near(url):
            return None
        try:
            return cls(chunk_folder(), settings.node_max_bytes)
        except SettingsError as error:
            _log.debug("no chunks are kept: %s", error)
            return None

    def get(
        self, ref: ChunkRef, download: Callable[[], bytes], prove: Callable[[bytes], Value], deadline: Deadline
    ) -> tuple[Value, Callable[[], None]]:
        """Give what `prove` makes of a chunk, and a function that keeps it, which must be called in the same thread.

        The chunk is the one that is kept, or else a download. A process that downloads it already is waited for, until
        it has kept it or died. Raises what the download raises, or `prove` of what was downloaded.
        """
        with ExitStack() as stack:
            try:
                path = stack.enter_context(self._inside(create=True)) / f"{ref.digest.hex}.zst"
            except OSError as error:
                _pass_by(error)
                return prove(download()), _nothing
            found = _kept(path, ref, prove)
            if found is None:
                stack.enter_context(_turn(path.with_suffix(".lock"), deadline.remaining() * _PATIENCE))
                found = _kept(path, ref, prove)
            if found is not None:
                return found[0], _nothing
            stored = download()
            value = prove(stored)
            turn = stack.pop_all()

        def keep() -> None:  # after whoever wants the chunk has it: a disk is slower than memory
            with turn:
                self._keep(path, stored)

        return value, keep

    def contents(self) -> NodeContents:
        """Count what is there; raise `UnavailableError` for a folder that cannot be read or is another user's."""
        with self._reading() as files:
            used = [found.st_mtime for path, found in files if path.suffix == ".zst"]
            return NodeContents(
                chunks=len(used),
                size=sum(found.st_size for _, found in files),
                oldest=min(used, default=None),
                newest=max(used, default=None),
            )

    def clear(self) -> None:
        """Remove all that is there; processes that are reading go on, and download what they still need."""
        with self._reading() as files:
            for path, _ in files:
                path.unlink(missing_ok=True)

    def _inside(self, *, create: bool = False) -> AbstractContextManager[Path]:
        return inner_folder(self.folder.parent, self.folder.name, create=create, private=True)

    @contextmanager
    def _reading(self) -> Iterator[list[tuple[Path, os.stat_result]]]:
        try:
            with ExitStack() as stack:
                try:
                    folder = stack.enter_context(self._inside())
                except FileNotFoundError:
                    yield []
                else:
                    yield list(_files(folder))
        except OSError as error:
            msg = f"{self.folder}: {error.strerror}"
            raise UnavailableError(msg, hint="check who owns the folder, and who may read and write there") from error

    def _keep(self, path: Path, stored: bytes) -> None:
        if len(stored) > self.most:
            return
        try:
            with self._counting:
                self._unseen -= len(stored)
                if self._unseen < 0:
                    free = _make_room(path.parent, len(stored), self.most)
                    self._unseen = free // _UNSEEN
            write_whole(path, stored)
        except OSError as error:
            _pass_by(error)


def _kept(path: Path, ref: ChunkRef, prove: Callable[[bytes], Value]) -> tuple[Value] | None:
    """Prove a chunk that is kept; remove it if it is damaged."""
    try:
        stored = _read(path, ref.stored_size + 1)
    except FileNotFoundError:
        return None
    except OSError as error:
        _pass_by(error)
        return None
    try:
        value = prove(stored)
    except BundleError as fault:
        _log.debug("a kept chunk is damaged, and downloaded again: %s", fault)
        with suppress(OSError):
            path.unlink()
        return None
    with suppress(OSError):
        os.utime(path)
    return (value,)


def _read(path: Path, size: int) -> bytes:
    """Read a file; a link is not followed, and a pipe is not waited for."""
    with os.fdopen(os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK), "rb") as file:
        return file.read(size)


@contextmanager
def _turn(path: Path, seconds: float) -> Iterator[None]:
    """Let one process after the other do something; who waits in vain, or where no lock is to be had, goes ahead."""
    from filelock import FileLock

    lock = FileLock(path)
    try:
        lock.acquire(timeout=seconds, poll_interval=_POLL_SECONDS)
    except Exception as error:  # noqa: BLE001 - a lock saves requests, and nothing depends on it
        _pass_by(error)
    try:
        yield
    finally:
        if lock.is_locked:
            with suppress(Exception):
                path.unlink(missing_ok=True)  # before others can have it: their turn begins with a look at the chunk
            with suppress(Exception):
                lock.release()


def _files(folder: Path) -> Iterator[tuple[Path, os.stat_result]]:
    """Find all files: chunks, locks, and what writers that were killed have left."""
    for path in folder.iterdir():
        with suppress(FileNotFoundError):
            found = path.lstat()
            if stat.S_ISREG(found.st_mode):
                yield path, found


def _make_room(folder: Path, size: int, most: int) -> int:
    """Remove what has been left alone longest, if so many bytes more would be too many; give the room after them."""
    files = sorted(_files(folder), key=lambda one: one[1].st_mtime)
    held = sum(found.st_size for _, found in files) + size
    if held > most:
        for path, found in files:
            path.unlink(missing_ok=True)
            held -= found.st_size
            if held <= most * _LESS:
                break
    return max(most - held, 0)


def _nothing() -> None:
    """Keep nothing."""


def _pass_by(error: Exception) -> None:
    _log.debug("a chunk is not kept on this node: %s", error)
