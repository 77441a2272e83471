"""What this process knows of each cache it used."""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from megacache._deadline import Deadline
from megacache._digest import Digest
from megacache._manifest import ArtifactRef, Manifest
from megacache.errors import AccessError, MegacacheError, UnavailableError


class Session:
    """What this process loaded from one cache, or knows to be there."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.artifacts: set[ArtifactRef] = set()
        """Loaded, published, or found to be covered."""
        self.bundles: set[str] = set()
        """Ids of the bundles that hold them: the parents of what is published next."""
        self.unusable: set[str] = set()
        """Ids of bundles that are damaged or withdrawn: they cover nothing."""
        self.folder: str | None = None
        """PyTorch's cache folder when this process warmed."""

    @contextmanager
    def publishing(self, deadline: Deadline) -> Iterator[None]:
        """Let one thread publish at a time, so that each sees what the one before it has published."""
        if not self._lock.acquire(timeout=max(deadline.remaining(), 0.001)):
            raise deadline.missed("waiting for another publication of this process")
        try:
            yield
        finally:
            self._lock.release()

    def loaded(self, manifest: Manifest) -> None:
        """Remember a bundle and all that it holds."""
        self.artifacts.update(manifest.artifacts)
        self.bundles.add(manifest.bundle)

    def holds(self, artifacts: Iterable[ArtifactRef], bundles: Iterable[str]) -> None:
        """Remember that artifacts need not be published any more, and the bundles that make it so."""
        self.artifacts.update(artifacts)
        self.bundles.update(bundles)

    def failed(self, bundle: str, fault: MegacacheError | None) -> None:
        """Remember a bundle that cannot be used, unless it was the store that failed."""
        if not isinstance(fault, (UnavailableError, AccessError)):
            self.unusable.add(bundle)

    def unlock(self) -> None:
        """Forget a lock that a thread of the parent process held when this one was forked."""
        self._lock = threading.Lock()


_sessions: dict[str, Session] = {}


def session(url: str, storage_options: Mapping[str, Any] | None) -> Session:
    """Give the one session of this process for a cache: the same URL at another endpoint is another cache."""
    options = sorted((name, repr(value)) for name, value in (storage_options or {}).items())
    return _sessions.setdefault(Digest.of(repr((url, options)).encode()).hex, Session())


def _unlock_all() -> None:
    for known in _sessions.values():
        known.unlock()


os.register_at_fork(after_in_child=_unlock_all)
