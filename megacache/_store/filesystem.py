"""Call fsspec's filesystems, each kind in the way that gives right answers for the fewest requests."""

import posixpath
import socket
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from megacache._runtime import DaemonExecutor, Deadline, call, create_file, list_files, unordered
from megacache._store.ages import modified_at
from megacache._store.clients import ARCHIVES, AZURE, GCS, LOCAL, S3, WEB, to_be_opened
from megacache._store.faults import NOT_FOUND, http_status
from megacache.errors import UnavailableError

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

_Info = Mapping[str, Any]
"""What a client says of a file."""
_OBJECTS = S3 | GCS | AZURE
_GREENLETS = frozenset({"gevent", "eventlet"})
# s3fs and gcsfs upload in parts what is larger than their `chunksize`.
_SINGLE_PUT = 1 << 40
_LARGEST = 64 << 20
"""Bytes of the largest object that megacache writes, and more."""


class Filesystem:
    """A filesystem of fsspec. Every call returns before its deadline, or raises `DeadlineError`."""

    def __init__(self, fs: "AbstractFileSystem", url: str) -> None:
        self._fs = fs
        self._url = url
        self._protocols = frozenset(_protocols(fs))

    @classmethod
    def open(cls, url: str, options: Mapping[str, Any], *, shown: str) -> tuple[Self, str]:
        """Find the filesystem behind a URL, and the path in it."""
        from fsspec.core import url_to_fs

        place, options = to_be_opened(url, options)
        if any(link.partition("://")[0] in _OBJECTS | WEB for link in place.split("::")):
            _refuse_greenlets(shown)
        fs, root = url_to_fs(place, **options)
        _prepare(fs)
        return cls(fs, shown), root

    @staticmethod
    def import_client(url: str) -> None:
        """Import what speaks the protocol of each link of a URL, and what `open` imports."""
        from fsspec import get_filesystem_class

        place, _ = to_be_opened(url, {})
        for link in place.split("::"):
            get_filesystem_class(link.partition("://")[0] if "://" in link else "file")
        import fsspec.core
        import fsspec.implementations.chained  # noqa: F401 - by newer versions

    @property
    def has_buckets(self) -> bool:
        """True if the first word of a path is a bucket or a container."""
        return bool(self._protocols & _OBJECTS)

    @property
    def retries_reads(self) -> bool:
        """True if the client asks again by itself for an answer that broke off."""
        return bool(self._protocols & GCS)

    def list(self, path: str, deadline: Deadline) -> Iterator[tuple[str, int, float | None]]:
        """Give path below a folder, size, and time if it is told, of every file there; without the folder none."""
        if self._protocols & LOCAL:
            yield from call(lambda: tuple(list_files(Path(path))), deadline=deadline, doing=f"listing {self._url}")
            return
        found = self._walk(path, deadline) if self._protocols & WEB else self._find(path, deadline)
        sizes = dict(self._sizes([name for name, info in found.items() if info.get("size") is None], deadline))
        for name, info in found.items():
            known = sizes.get(name) if info.get("size") is None else info["size"]
            if known is not None:
                yield name.removeprefix(path).lstrip("/"), known, modified_at(info)

    def read(self, path: str, size: int, deadline: Deadline) -> bytes:
        """Read the first bytes of a file."""
        if self._protocols & WEB:
            return self._wait(self._stream, path, size, doing=self._doing("read"), deadline=deadline)  # type: ignore[no-any-return]
        # Given a range, s3fs need not ask for the size first: one request, not two.
        return self._ask("cat_file", path, start=0, end=size, deadline=deadline)  # type: ignore[no-any-return]

    def create(self, path: str, data: bytes, deadline: Deadline, *, if_absent: bool) -> None:
        """Write a file whole; if asked to, raise `FileExistsError` if it exists, where the store tells that."""
        if self._protocols & LOCAL:
            call(lambda: create_file(Path(path), data), deadline=deadline, doing=f"writing to {self._url}")
            return
        if self._protocols & ARCHIVES:
            msg = "an archive can only be read"
            raise NotImplementedError(msg)
        how: dict[str, Any] = {"mode": "create"} if if_absent else {}
        if self._protocols & (S3 | GCS):
            # Servers honour the condition on a single PUT only, and not on a multipart upload.
            how["chunksize"] = _SINGLE_PUT
        elif not self._protocols & AZURE:  # elsewhere a file needs its folder
            self._ask("makedirs", path.rpartition("/")[0], exist_ok=True, deadline=deadline)
        self._ask("pipe_file", path, data, **how, deadline=deadline)

    def modified(self, path: str, deadline: Deadline) -> float | None:
        """Tell when a file was written, in seconds since 1970, if that is told."""
        return modified_at(self._ask("info", path, deadline=deadline))

    def delete(self, path: str, deadline: Deadline) -> None:
        """Delete a file."""
        self._ask("rm_file", path, deadline=deadline)

    def _find(self, path: str, deadline: Deadline) -> Mapping[str, _Info]:
        # A listing that the client has kept would hide what other processes wrote since.
        self._fs.invalidate_cache()
        parent, _, name = path.rpartition("/")
        try:
            if self._protocols & (S3 | GCS) and parent:
                # With a prefix, s3fs does not ask again when the answer is empty.
                found = self._ask("find", parent, prefix=f"{name}/", detail=True, deadline=deadline)
            else:
                found = self._ask("find", path, detail=True, deadline=deadline)
                if not found:  # `find` takes a bucket or a folder that is not there for an empty one
                    asked = ("info", path.partition("/")[0]) if self._protocols & AZURE else ("ls", path)
                    self._ask(*asked, deadline=deadline)
        except FileNotFoundError:
            if self._protocols & _OBJECTS:
                raise
            return {}
        infos = found.values() if isinstance(found, dict) else ()  # adlfs gives a list for the path of a file
        return {info["name"]: info for info in infos if info["type"] == "file"}

    def _walk(self, root: str, deadline: Deadline) -> Mapping[str, _Info]:
        """Give the files that a web server links to in its listings, each of which links to itself as well."""
        found: dict[str, _Info] = {}
        folders = [root]
        for folder in folders:
            try:
                infos = self._ask("ls", f"{folder}/", detail=True, deadline=deadline)
            except FileNotFoundError:
                continue
            for info in infos:
                name = f"{root}/{posixpath.normpath(info['name'].removeprefix(root).lstrip('/'))}"
                # Links that sort a listing have a query, as Apache's `?C=M;O=A`; others lead to the parent folder.
                if set("?#") & set(name) or f"{root}/.." in name:
                    continue
                if info["type"] == "file":
                    found[name] = info
                elif name not in folders and name != f"{root}/.":
                    folders.append(name)
        return found

    def _sizes(self, paths: Sequence[str], deadline: Deadline) -> Iterator[tuple[str, int | None]]:
        """Tell the sizes of files whose listing tells none, as a web server's does; None is for a file that is gone."""
        asked = unordered(lambda path: self._size(path, deadline), paths, deadline=deadline, doing=self._doing("list"))
        for done in asked:
            size = done.result()
            if size is None or size >= 0:
                yield done.item, size
            else:
                yield done.item, len(self.read(done.item, _LARGEST, deadline))

    def _size(self, path: str, deadline: Deadline) -> int | None:
        """Ask for the size of a file; it is negative where the server does not tell, and None if the file is gone."""
        try:
            size = self._ask("info", path, deadline=deadline).get("size")
        except FileNotFoundError as error:  # http takes any fault for it
            if error.__cause__ is not None and http_status(error) != NOT_FOUND:
                raise error.__cause__ from None
            return None
        return -1 if size is None else size

    async def _stream(self, path: str, size: int) -> bytes:
        session = await self._fs.set_session()
        options = dict(self._fs.kwargs)
        options["headers"] = {**options.get("headers", {}), "Accept-Encoding": "identity"}
        pieces = []
        async with session.get(self._fs.encode_url(path), **options) as answer:
            self._fs._raise_not_found_for_status(answer, path)
            # Some servers send the whole file, however little is asked for.
            while size > 0 and (piece := await answer.content.read(size)):
                pieces.append(piece)
                size -= len(piece)
        return b"".join(pieces)

    def _ask(self, method: str, *args: Any, deadline: Deadline, **kwargs: Any) -> Any:
        doing = self._doing(method)
        deadline.check(doing)
        # `DirFileSystem` calls itself asynchronous, whatever it wraps.
        if not self._fs.async_impl or "dir" in self._protocols:
            return call(lambda: getattr(self._fs, method)(*args, **kwargs), deadline=deadline, doing=doing)
        return self._wait(getattr(self._fs, f"_{method}"), *args, doing=doing, deadline=deadline, **kwargs)

    def _wait(
        self, ask: Callable[..., Coroutine[Any, Any, Any]], *args: Any, doing: str, deadline: Deadline, **kwargs: Any
    ) -> Any:
        from fsspec.asyn import sync
        from fsspec.exceptions import FSTimeoutError

        deadline.check(doing)
        try:
            # fsspec takes a timeout of 0 for none.
            return sync(self._fs.loop, ask, *args, timeout=max(deadline.remaining(), 0.001), **kwargs)
        except FSTimeoutError as error:
            raise deadline.missed(doing) from error

    def _doing(self, method: str) -> str:
        return f"asking {self._url} to {method}"


def _refuse_greenlets(url: str) -> None:
    # A greenlet would run fsspec's event loop in the thread that waits for it: no request would ever be made.
    library = socket.socket.__module__.partition(".")[0]
    if library in _GREENLETS:
        raise UnavailableError(
            f"{url}: {library} has replaced Python's sockets and threads: no client of this store works with it",
            hint="copy the cache to a folder with `megacache pull` before the program starts, or leave it unpatched",
        )


def _protocols(fs: "AbstractFileSystem") -> tuple[str, ...]:
    return (fs.protocol,) if isinstance(fs.protocol, str) else tuple(fs.protocol)


def _prepare(fs: "AbstractFileSystem | None") -> None:
    while fs is not None:
        if S3.intersection(_protocols(fs)):
            fs.retries = 1  # s3fs tries again around botocore, twice for a read, and makes 100 requests of one
        if AZURE.intersection(_protocols(fs)):
            _hurry(fs.service_client)
        # asyncio resolves host names in this executor; the private name is None until it has made one of its own.
        if fs.async_impl and getattr(fs.loop, "_default_executor", None) is None:
            fs.loop.set_default_executor(DaemonExecutor())
        fs = getattr(fs, "fs", None)


def _hurry(client: Any) -> None:
    # By itself Azure's client waits for 15 s before it tries again; S3's tries three times within seconds.
    with suppress(AttributeError):  # `_config` is private to azure-storage-blob
        policy = client._config.retry_policy
        policy.initial_backoff, policy.increment_base, policy.random_jitter_range, policy.total_retries = 0, 1, 0.5, 2
