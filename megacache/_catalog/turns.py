"""Publishers that have something in common take turns, so that it is uploaded and stored once.

Before it uploads, a publisher takes a lease that says what it is about to publish, and gives it back when that is
published. Publishers that start together try to create the same object, so that each sees the others. Who has
nothing in common with those ahead goes on beside them. Nobody waits for long for one that hangs or has died, and then
what two publish is stored twice, as it is where a store cannot create an object once only.
"""

from collections.abc import Collection, Iterable
from contextlib import suppress

from megacache._bundle import Digest, EnvironmentPrefix, LeaseName
from megacache._catalog.lease import Lease
from megacache._runtime import Deadline
from megacache._store import Store
from megacache.errors import AccessError, MegacacheError, MissingError, UnavailableError

_MOST = 8
"""Leases of others that are looked at: where more publish at once, one goes on without a lease of its own."""
_LARGEST = 1 << 20
"""Bytes of a lease that are read."""
_OVERTAKE_SECONDS = 2.0
_DIGITS = 16


class Turn:
    """The turn of one publisher in one environment."""

    def __init__(self, store: Store, prefix: EnvironmentPrefix) -> None:
        """Ask a store whose deadline is that of the wait: what it does not answer by then, nobody waits for."""
        self._store = store
        self._prefix = prefix
        self._lease: Lease | None = None
        self._known: frozenset[int] = frozenset()

    def take(self, names: Collection[str], found: Iterable[LeaseName]) -> frozenset[int]:
        """Begin to publish what has these names, unless others publish some of it; give the numbers of their leases.

        `found` are the leases of a listing.
        """
        own = _marks(names)
        known = self._known = frozenset(one.number for one in found)
        if ahead := frozenset(number for number in sorted(known)[-_MOST:] if self._overlaps(number, own)):
            return ahead
        free = (number for number in range(1, len(known) + _MOST + 1) if number not in known)
        for number in free:
            try:
                self._lease = Lease.claim(self._store, self._prefix, number, _content(own))
            except UnavailableError:  # to store something twice costs less than to publish nothing
                break
            if self._lease is not None:
                break
            if self._overlaps(number, own):
                return frozenset([number])
        return frozenset()

    def overtake(self, names: Collection[str], ahead: Iterable[int]) -> None:
        """Begin to publish, for those ahead have gone on for too long; nobody else shall wait for them."""
        store = self._store.within(Deadline.after(_OVERTAKE_SECONDS))
        number = max(self._known.union(ahead), default=0) + 1
        with suppress(UnavailableError):
            self._lease = Lease.claim(store, self._prefix, number, _content(_marks(names)))
        for one in ahead:
            # A writer that may not delete leaves it to `megacache gc`.
            with suppress(MegacacheError):
                store.delete(self._prefix.lease(LeaseName(number=one, beat=0)))

    def end(self) -> None:
        """Let the others go on."""
        if self._lease is not None:
            self._lease.release()

    def _overlaps(self, number: int, own: Collection[str]) -> bool:
        """Tell whether a lease is of something that is to be published here, or has just ended."""
        key = self._prefix.lease(LeaseName(number=number, beat=0))
        try:
            told = self._store.read(key, size=_LARGEST)
        except MissingError:
            return True
        except (AccessError, UnavailableError):
            return False
        return not set(own).isdisjoint(told.decode(errors="replace").split())


def _marks(names: Iterable[str]) -> frozenset[str]:
    return frozenset(Digest.of(name.encode()).hex[:_DIGITS] for name in names)


def _content(marks: Iterable[str]) -> bytes:
    return "\n".join(sorted(marks)).encode()[:_LARGEST]
