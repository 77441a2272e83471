"""A lease tells other workers that somebody compiles, or publishes, what the store lacks, as long as its holder lives.

It is one object that only one worker can create, and beside it a beat that the holder renews. Whoever waits watches
the beats by a clock of its own: no two clocks need agree, and nothing has to be cleaned up after a holder that died.
Where a store cannot create an object once only, two workers may compile; nothing else goes wrong.
"""

import os
import threading
from collections.abc import Iterable
from contextlib import suppress

from megacache._bundle import EnvironmentPrefix, LeaseName
from megacache._runtime import Deadline
from megacache._store import Store
from megacache.errors import MegacacheError

LEASE_TERM = 30.0
"""Seconds without a new beat after which a lease counts no more."""
# Three beats may get lost before others take over.
_BEAT = 8.0
"""Seconds between two beats."""
_RELEASE_SECONDS = 2.0
_CONTENT = b"\n"  # several stores have no empty objects


class Lease:
    """A lease that this process holds."""

    def __init__(self, store: Store, prefix: EnvironmentPrefix, number: int) -> None:
        self._store = store
        self._prefix = prefix
        self._beat = LeaseName(number=number, beat=0)
        self._over = threading.Event()
        self._writing = threading.Lock()
        self._process = os.getpid()

    @classmethod
    def claim(cls, store: Store, prefix: EnvironmentPrefix, number: int, content: bytes = _CONTENT) -> "Lease | None":
        """Take the lease with a number; None if another worker has it."""
        lease = cls(store, prefix, number)
        return lease if store.create(prefix.lease(lease._beat), content) else None

    @classmethod
    def take(cls, store: Store, prefix: EnvironmentPrefix, found: Iterable[LeaseName]) -> "Lease | None":
        """Take the lease that follows those found in a listing; None if another worker was faster."""
        old = tuple(found)
        lease = cls.claim(store, prefix, max((one.number for one in old), default=0) + 1)
        if lease is None:
            return None
        for one in old:
            # Leases that have run out stop nobody: a writer that may not delete leaves them to `megacache gc`.
            with suppress(MegacacheError):
                store.delete(prefix.lease(one))
        return lease

    @property
    def number(self) -> int:
        """Which lease it is, from 1."""
        return self._beat.number

    @property
    def over(self) -> bool:
        """Whether it has been released."""
        return self._over.is_set()

    @property
    def inherited(self) -> bool:
        """Whether the parent of this process holds it, which was forked since."""
        return os.getpid() != self._process

    def keep(self, seconds: float) -> None:
        """Renew it from a thread of its own, until it is released or `seconds` are over."""
        deadline = Deadline.after(seconds)

        def beat() -> None:
            while not self._over.wait(min(_BEAT, deadline.remaining())) and deadline.remaining():
                with suppress(MegacacheError):  # the next beat may come through, and waiting is bounded anyway
                    self.renew()

        with suppress(RuntimeError):  # no thread is to be had: others take over after LEASE_TERM
            threading.Thread(target=beat, name="megacache-lease", daemon=True).start()

    def renew(self) -> None:
        """Show that the holder lives: write the next beat, and delete the one before."""
        store = self._store.within(Deadline.after(LEASE_TERM))
        with self._writing:
            if self.over:
                return
            last, following = self._beat, LeaseName(number=self.number, beat=self._beat.beat + 1)
            store.create(self._prefix.lease(following), _CONTENT)
            self._beat = following
            # Beat 0 stays, or another worker could take the same lease.
            if last.beat:
                store.delete(self._prefix.lease(last))

    def release(self) -> None:
        """Let the others go on at once; a forked child leaves that to its parent, and a store that fails to time."""
        if self.over or self.inherited:
            return
        self._over.set()
        # Nobody waits for a store that hangs: without new beats, the others go on soon.
        deadline = Deadline.after(_RELEASE_SECONDS)
        store = self._store.within(deadline)
        if not self._writing.acquire(timeout=deadline.remaining()):
            return
        try:
            with suppress(MegacacheError):
                for beat in {self._beat, LeaseName(number=self.number, beat=0)}:
                    store.delete(self._prefix.lease(beat))
        finally:
            self._writing.release()
