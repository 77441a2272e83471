"""The one door to fsspec: a URL prefix of write-once objects.

A shared cache needs three operations: list a folder, read an object, create an object that does not exist. Removing
bundles also deletes. If two writers create one object at once, on local disk, in memory, on
S3, GCS and Azure one wins and the other is told. On whatever else fsspec reaches, and on S3 servers that ignore or
refuse conditions, the last one wins, which is harmless, since both wrote something valid: a chunk is named by its
content, a manifest by what its bundle holds.
"""

import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, Self, TypeVar

from megacache._runtime import Deadline, call, kept
from megacache._store.faults import MISUSE, broke_off, faults, http_status, is_busy, refuses_conditions
from megacache._store.filesystem import Filesystem
from megacache._store.scope import scope_of
from megacache._store.secrets import keep_secret
from megacache._store.url import redacted
from megacache.errors import SettingsError, UnavailableError

_Value = TypeVar("_Value")
_log = logging.getLogger("megacache")
_unconditional: dict[str, object] = kept({})
"""URLs of stores that have refused a conditional create in this process, each with a mark of whoever learnt it."""

_CREATE_ATTEMPTS = 5
_READ_ATTEMPTS = 3
_PAUSE_SECONDS = 0.1
_BUSY_PAUSE, _LONGEST_BUSY_PAUSE = 1.0, 8.0
"""Seconds before a store that has too much to do is asked again, at most: its client has tried a few times by then."""
# s3fs raises `FileExistsError` for a 412 only if the answer names a condition, which radosgw's does not. With 409 AWS
# tells a writer that others write the same object right now.
_EXISTS, _CONFLICT = 412, 409


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One object in a listing."""

    key: str
    """Path relative to the folder that was listed."""
    size: int
    """Bytes."""
    modified: float | None = field(default=None, compare=False)
    """When it was written, in seconds since 1970 by the store's clock; None if the store does not tell."""


def import_client(url: str) -> None:
    """Import the client for a URL in this thread, so that the one that opens the store imports nothing.

    A fork would leave a lock of that import locked. A client that cannot be imported fails where the store is opened.
    """
    with suppress(Exception):
        Filesystem.import_client(url)


class Store:
    """A prefix that fsspec reaches. Every call returns before the deadline, or raises `DeadlineError`."""

    def __init__(
        self, files: Filesystem, root: str, *, url: str, deadline: Deadline, scope: str, is_patient: bool = False
    ) -> None:
        self._files = files
        self._root = root.rstrip("/")
        self.url = url
        """Fit to be shown."""
        self.deadline = deadline
        self.scope = scope
        """The place, as `scope_of` names it; signatures are for it."""
        self._is_patient = is_patient

    @classmethod
    def open(cls, url: str, *, storage_options: Mapping[str, Any] | None, deadline: Deadline) -> Self:
        """Find the filesystem behind a URL; raise `SettingsError` if nothing installed speaks its protocol.

        Neither the instance nor a listing is shared with the rest of the process, so that what other writers did is
        seen.
        """
        keep_secret(url, storage_options)
        shown = redacted(url)

        def connect() -> tuple[str, Filesystem, str]:
            return scope_of(url), *Filesystem.open(url, storage_options or {}, shown=shown)

        with faults(shown, "opening it", misuse=MISUSE):
            doing = f"opening {shown} and looking for its credentials"
            scope, files, root = call(connect, deadline=deadline, doing=doing)
        return cls(files, root, url=shown, deadline=deadline, scope=scope)

    def within(self, deadline: Deadline) -> "Store":
        """Give the same store under another deadline."""
        return self._otherwise(deadline=deadline)

    def patient(self) -> "Store":
        """Give the same store; while it says only that it has too much to do, it is asked until the time is over."""
        return self._otherwise(is_patient=True)

    def bound_for(self, url: str) -> "Store":
        """Give the same store, with signatures for the place to which it will be moved; no request is sent there."""
        keep_secret(url)
        return self._otherwise(scope=scope_of(url))

    def beside(self, ending: str) -> "Store":
        """Give the place whose URL is this one with something more at its end.

        Raises `SettingsError` for a whole bucket or filesystem, which has nothing beside it.
        """
        path = self._root.strip("/")
        if not path or (self._files.has_buckets and "/" not in path):
            raise SettingsError(f"nothing lies beside {self.url}", hint="use a folder in it, named after a model")
        root, url = f"{self._root}{ending}", f"{self.url}{ending}"
        return self._otherwise(root=root, url=url, scope=f"{self.scope}{ending}")

    def _otherwise(self, **changes: Any) -> "Store":
        own = {"root": self._root, "url": self.url, "deadline": self.deadline, "scope": self.scope}
        return Store(self._files, **{**own, "is_patient": self._is_patient, **changes})

    def list(self, folder: str = "") -> tuple[Entry, ...]:
        """List all objects below a folder, 1,000 a request; a folder that is not there is empty.

        A web server is asked for each folder, and for the size of each object. Raises `MissingError` if the bucket
        itself is not there.
        """
        path = f"{self._root}/{folder}".rstrip("/")
        with faults(self.url, f"listing {folder or 'it'}"):
            found = self._asked(lambda: tuple(self._files.list(path, self.deadline)))
            return tuple(Entry(key=key, size=size, modified=modified) for key, size, modified in found)

    def read(self, key: str, *, size: int) -> bytes:
        """Read the first `size` bytes of an object, in one request; raise `MissingError` if it is not there."""
        # HTTP has no range of zero bytes.
        if not size:
            return b""
        with faults(self.url, f"reading {key}"):
            for attempt in range(1, _READ_ATTEMPTS):
                try:
                    return self._asked(lambda: self._files.read(f"{self._root}/{key}", size, self.deadline))
                except Exception as error:
                    # botocore leaves the body of an answer to its caller; gcsfs has tried again by itself.
                    if not broke_off(error) or self._files.retries_reads:
                        raise
                    self._pause(attempt)
            return self._asked(lambda: self._files.read(f"{self._root}/{key}", size, self.deadline))

    def create(self, key: str, data: bytes) -> bool:
        """Create an object whole or not at all; return False if it was there already, and leave that one alone.

        A store that refuses a conditional create is written to without one, as one that ignores the condition is.
        """
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

    def age(self, key: str) -> float | None:
        """Tell how many seconds ago an object was written; None if it is not there, or the store does not tell."""
        with faults(self.url, f"looking at {key}"), suppress(FileNotFoundError):
            modified = self._files.modified(f"{self._root}/{key}", self.deadline)
            return None if modified is None else time.time() - modified
        return None

    def delete(self, key: str) -> None:
        """Delete an object; one that does not exist is not a fault."""
        with faults(self.url, f"deleting {key}"), suppress(FileNotFoundError):
            self._files.delete(f"{self._root}/{key}", self.deadline)

    def _create(self, path: str, data: bytes) -> None:
        if self.url not in _unconditional:
            try:
                self._files.create(path, data, self.deadline, if_absent=True)
            except Exception as error:
                if not refuses_conditions(error):
                    raise
            else:
                return
        self._files.create(path, data, self.deadline, if_absent=False)
        # Learnt only now: if the second attempt fails as well, the condition was not what the store refused.
        # Of the threads that learn it at once, one warns. A lock would keep the handler of a signal waiting for ever.
        own = object()
        if _unconditional.setdefault(self.url, own) is own:
            _log.warning("no conditional create: url=%s; of writers that race for one object the last wins", self.url)

    def _asked(self, ask: Callable[[], _Value]) -> _Value:
        pause = _BUSY_PAUSE
        while True:
            try:
                return ask()
            except Exception as error:
                if not self._is_patient or not is_busy(error) or self.deadline.remaining() <= pause:
                    raise
                # Those who were told so at one moment should not ask again at one moment.
                time.sleep(pause * random.SystemRandom().uniform(0.5, 1))
                pause = min(pause * 2, _LONGEST_BUSY_PAUSE)

    def _pause(self, attempt: int) -> None:
        time.sleep(min(_PAUSE_SECONDS * 2**attempt, self.deadline.remaining()))
