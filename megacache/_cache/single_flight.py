"""Single flight: of the workers that find nothing published, one compiles, and the others wait for its bundle."""

import random
import time
from contextlib import suppress
from typing import Any

from megacache._bundle import Environment, environment_prefix
from megacache._cache.call import Call
from megacache._cache.session import Session
from megacache._catalog import LEASE_TERM, Catalog, Lease, Listing, Places, catalog_of
from megacache._runtime import Deadline
from megacache._store import Store
from megacache.errors import AccessError, SettingsError, UnavailableError

# Of 1,000 workers that wait, 170 ask in a second.
_FIRST_PAUSE, _LONGEST_PAUSE = 1.0, 6.0
"""Seconds between two listings, on average."""
_COMPILES = "this process compiles for the others, which wait"


class Flight:
    """One worker among those that start with nothing published."""

    def __init__(self, call: Call, places: Places, environment: Environment, session: Session, *, wait: float) -> None:
        """Join the others; `wait` is how many seconds at most."""
        self._call = call
        self._places = places
        self._store = places.store
        # To wait for a store that has too much to do costs less than to compile.
        places.be_patient()
        self._catalog = catalog_of(places, environment)
        self._environment = environment
        # Hosts with one kind of GPU wait for each other, whatever their CPUs: most graphs serve all of them.
        self._shared = environment.for_any_cpu or environment
        self._session = session
        self._wait = wait
        self._may_compile_for_others = not call.settings.read_only
        self.told = ""
        """What came of it, for the reason of a miss."""

    def land(self) -> Listing:
        """Give the first listing that shows a bundle, or the last one if this worker is to compile."""
        with self._call.clock.stage("list"):
            listing = self._catalog.list()
        if listing.visible:
            return listing
        if objection := self._objection():
            self.told = objection
            return listing
        with self._call.clock.stage("wait"):
            return self._everywhere(self._watch(listing))

    def _everywhere(self, landed: Listing) -> Listing:
        """List the nearer places as well, which were not watched: what they lack is copied to them."""
        if len(self._places) == 1 or not landed.visible:
            return landed
        self._places.restart(self._call.deadline.restarted())
        with suppress(UnavailableError):
            return catalog_of(self._places, self._environment).list()
        return landed

    def _objection(self) -> str:
        """Say why this process must not wait; a process that compiles for the others does not wait for itself."""
        return _COMPILES if self._session.keeps_others_waiting else ""

    def _watch(self, listing: Listing) -> Listing:
        started = seen_at = time.monotonic()
        seen, pause = listing.leases, _FIRST_PAUSE
        # A parent may wait for its children: one of them takes its place, and the others wait for that one.
        lease = self._session.lease
        inherited = lease.number if lease is not None and lease.inherited else 0
        while not listing.visible:
            now = time.monotonic()
            # All of them, for the newest may be that of a publication, which has no beats.
            if listing.leases != seen:
                seen, seen_at = listing.leases, now
            abandoned = not seen or seen[-1].number <= inherited or now - seen_at >= LEASE_TERM
            if abandoned and self._may_compile_for_others and self._take(listing):
                return listing
            if now - started >= self._wait:
                self.told = f"it waited {self._wait:g} s for another worker, which has published nothing"
                return listing
            if now - seen_at >= LEASE_TERM and not self._may_compile_for_others:
                self.told = "no other worker compiles, and this one cannot publish"
                return listing
            self._sleep(min(pause, started + self._wait - now))
            pause = min(pause * 2, _LONGEST_PAUSE)
            with suppress(UnavailableError):  # one that fails for a moment costs less than compiling
                listing = self._list()
        return listing

    def _take(self, listing: Listing) -> bool:
        """Become the worker that compiles, if none is faster and what it compiles will be published."""
        if self._call.restarted().signing().objection:
            self._may_compile_for_others = False
            return False
        try:
            prefix = environment_prefix(self._shared.device, self._shared.fingerprint)
            lease = Lease.take(self._bounded(), prefix, listing.leases)
        except AccessError:  # who may not write a lease may not publish either
            self._may_compile_for_others = False
            return False
        except UnavailableError:  # as for a listing: to wait a little longer costs less than compiling
            return False
        if lease is None:
            return False
        lease.keep(self._wait)
        self._session.hold(lease)
        self.told = _COMPILES
        return True

    def _list(self) -> Listing:
        return Catalog.of(self._bounded(), self._environment).list()

    def _bounded(self) -> Store:
        """Give the store with as much time for one step as the call gives all of them."""
        return self._store.within(self._call.deadline.restarted())

    def _sleep(self, seconds: float) -> None:
        # Workers that start together should not go on together; forked ones share the state of `random`.
        time.sleep(seconds * random.SystemRandom().uniform(0.5, 1.5))


def checked_wait(seconds: Any) -> float:
    """Read how long to wait for another worker."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < float("inf"):
        msg = f"wait is {seconds!r:.40}"
        raise SettingsError(msg, hint="give a number of seconds; 0 waits for no other worker")
    return float(Deadline.after(seconds).seconds if seconds else 0)
