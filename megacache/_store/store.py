"""The one door to fsspec: a URL prefix of write-once objects.

Sharing a cache asks three things of a store: list a folder, read an object, create an object that does not exist;
removing bundles and start markers also deletes. If two writers create one object at once, on local disk, in memory, on
S3, GCS and Azure one wins and the other is told. On whatever else fsspec reaches, and on S3 servers that ignore
conditions, the last one wins, which is harmless, since both wrote something valid: a chunk is named by its content, a
manifest by what its bundle holds.
"""

import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from megacache._runtime import DaemonExecutor, Deadline, call, create_file, list_files
from megacache._store.clients import GCS, LOCAL, S3, with_defaults
from megacache._store.faults import MISUSE, broke_off, faults, http_status
from megacache._store.scope import scope_of
from megacache._store.secrets import keep_secret
from megacache._store.url import redacted
from megacache.errors import UnavailableError

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

_SINGLE_PUT = 1 << 40
_CREATE_ATTEMPTS = 5
_READ_ATTEMPTS = 3
_PAUSE_SECONDS = 0.1
_EXISTS, _CONFLICT = 412, 409


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object in a listing."""

    key: str
    """Path relative to the folder that was listed."""
    size: int
    """Bytes."""


class Store:
    """A prefix that fsspec reaches. Every call returns before the deadline, or raises `DeadlineError`."""

    def __init__(
        self,
        fs: "AbstractFileSystem",
        root: str,
        *,
        url: str,
        deadline: Deadline,
        scope: str,
    ) -> None:
        self._fs = fs
        self._root = root.rstrip("/")
        self._protocols = frozenset(_protocols(fs))
        self.url = url
        """Fit to be shown."""
        self.deadline = deadline
        self.scope = scope
        """The place, as `scope_of` names it; signatures are for it."""

    @classmethod
    def open(cls, url: str, *, storage_options: Mapping[str, Any] | None, deadline: Deadline) -> Self:
        """Find the filesystem behind a URL; raise `SettingsError` if nothing installed speaks its protocol.

        Neither the instance nor a listing is shared with the rest of the process, so that what other writers did is
        seen.
        """
        keep_secret(url, storage_options)
        shown = redacted(url)

        def connect() -> "tuple[AbstractFileSystem, str, str]":
            from fsspec.core import url_to_fs

            scope = scope_of(url)
            fs, root = url_to_fs(url, **with_defaults(url, storage_options or {}))
            _prepare(fs)
            return fs, root, scope

        with faults(shown, "opening it", misuse=MISUSE):
            fs, root, scope = call(connect, deadline=deadline, doing=f"opening {shown} and looking for its credentials")
        return cls(fs, root, url=shown, deadline=deadline, scope=scope)

    def within(self, deadline: Deadline) -> "Store":
        """Give the same store under another deadline."""
        return Store(self._fs, self._root, url=self.url, deadline=deadline, scope=self.scope)

    def bound_for(self, url: str) -> "Store":
        """Give the same store with signatures for the place to which it will be moved, of which nothing is asked."""
        keep_secret(url)
        scope = scope_of(url)
        return Store(self._fs, self._root, url=self.url, deadline=self.deadline, scope=scope)

    def list(self, folder: str = "") -> tuple[Entry, ...]:
        """List all objects below a folder, 1,000 a request; a folder that is not there is empty.

        Raises `MissingError` if the bucket itself is not there.
        """
        path = f"{self._root}/{folder}".rstrip("/")
        with faults(self.url, f"listing {folder or 'it'}"):
            if self._protocols & LOCAL:
                found = call(lambda: tuple(list_files(Path(path))), deadline=self.deadline, doing=f"listing {self.url}")
                return tuple(Entry(key=key, size=size) for key, size in found)
            return tuple(
                Entry(key=info["name"].removeprefix(path).lstrip("/"), size=info["size"] or 0)
                for info in self._find(path).values()
                if info["type"] == "file"
            )

    def read(self, key: str, *, size: int) -> bytes:
        """Read the first `size` bytes of an object, in one request; raise `MissingError` if it is not there."""
        if not size:
            return b""
        with faults(self.url, f"reading {key}"):
            for attempt in range(1, _READ_ATTEMPTS):
                try:
                    return self._read(key, size)
                except Exception as error:
                    # botocore leaves the body of an answer to its caller; gcsfs has tried again by itself.
                    if not broke_off(error) or self._protocols & GCS:
                        raise
                    self._pause(attempt)
            return self._read(key, size)

    def create(self, key: str, data: bytes) -> bool:
        """Create an object whole or not at all; return False if it was there already, and leave that one alone."""
        with faults(self.url, f"creating {key}"):
            for attempt in range(_CREATE_ATTEMPTS):
                try:
                    self._create(f"{self._root}/{key}", data)
                except FileExistsError:
                    return False
                except OSError as error:
                    status = http_status(error)
                    if status == _EXISTS:
                        return False
                    if status != _CONFLICT:
                        raise
                    self._pause(attempt)
                else:
                    return True
        msg = f"{self.url}: others keep creating {key}"
        raise UnavailableError(msg, hint="publish again")

    def delete(self, key: str) -> None:
        """Delete an object; one that is not there is no fault."""
        with faults(self.url, f"deleting {key}"), suppress(FileNotFoundError):
            self._ask("rm_file", f"{self._root}/{key}")

    def _find(self, path: str) -> Mapping[str, Mapping[str, Any]]:
        parent, _, name = path.rpartition("/")
        if self._protocols & (S3 | GCS) and parent:
            # With a prefix, s3fs does not ask again when the answer is empty.
            return self._ask("find", parent, prefix=f"{name}/", detail=True)  # type: ignore[no-any-return]
        try:
            found: Mapping[str, Mapping[str, Any]] = self._ask("find", path, detail=True)
            if not found:
                self._ask("ls", path)  # raises what `find` takes for an empty folder
        except FileNotFoundError:
            if self._protocols & (S3 | GCS):
                raise
            return {}
        return found

    def _create(self, path: str, data: bytes) -> None:
        if self._protocols & LOCAL:
            call(lambda: create_file(Path(path), data), deadline=self.deadline, doing=f"writing to {self.url}")
        elif self._protocols & (S3 | GCS):
            # Servers honour the condition on a single PUT only, and not on a multipart upload.
            self._ask("pipe_file", path, data, mode="create", chunksize=_SINGLE_PUT)
        else:
            self._ask("makedirs", path.rpartition("/")[0], exist_ok=True)
            self._ask("pipe_file", path, data, mode="create")

    def _read(self, key: str, size: int) -> bytes:
        return self._ask("cat_file", f"{self._root}/{key}", start=0, end=size)  # type: ignore[no-any-return]

    def _pause(self, attempt: int) -> None:
        time.sleep(min(_PAUSE_SECONDS * 2**attempt, self.deadline.remaining()))

    def _ask(self, method: str, *args: Any, **kwargs: Any) -> Any:
        doing = f"asking {self.url} to {method}"
        self.deadline.check(doing)
        if not self._fs.async_impl or "dir" in self._protocols:
            return call(lambda: getattr(self._fs, method)(*args, **kwargs), deadline=self.deadline, doing=doing)
        from fsspec.asyn import sync
        from fsspec.exceptions import FSTimeoutError

        try:
            coroutine = getattr(self._fs, f"_{method}")
            return sync(self._fs.loop, coroutine, *args, timeout=max(self.deadline.remaining(), 0.001), **kwargs)
        except FSTimeoutError as error:
            raise self.deadline.missed(doing) from error


def _protocols(fs: "AbstractFileSystem") -> tuple[str, ...]:
    """Name the protocols that a filesystem speaks, the one that it is best known by first."""
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _prepare(fs: "AbstractFileSystem | None") -> None:
    """Change what a client does by itself, and each client that it stands before."""
    while fs is not None:
        if S3.intersection(_protocols(fs)):
            fs.retries = 1  # s3fs tries again around botocore, twice for a read, and makes 100 requests of one
        if fs.async_impl and getattr(fs.loop, "_default_executor", None) is None:
            fs.loop.set_default_executor(DaemonExecutor())
        fs = getattr(fs, "fs", None)
