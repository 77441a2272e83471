"""What of a publication nobody else has published to an environment, or is about to."""

import random
import time

from megacache._bundle import Environment
from megacache._cache.recording import Found, Recorded
from megacache._cache.session import Session
from megacache._catalog import Catalog, Listing, Turn, affordable_manifests
from megacache._runtime import Deadline

_FIRST_PAUSE, _LONGEST_PAUSE = 0.25, 2.0
"""Seconds between two listings while others publish, on average."""


class Uncovered:
    """What is left to publish for one environment."""

    def __init__(
        self, new: Found, environment: Environment, catalog: Catalog, recorded: Recorded, session: Session
    ) -> None:
        """List what is published, and leave out what that holds."""
        self.left = new
        self.environment = environment
        self.parents = set(session.bundles)
        """Ids of the bundles that hold what this process knows."""
        self._catalog = catalog
        self._recorded = recorded
        self._session = session
        self._read: set[str] = set()
        self.listing = self._look()

    def take_turn(self, turn: Turn, patience: Deadline) -> None:
        """Wait while others publish some of it, and leave out what they have published."""
        pause, ahead = _FIRST_PAUSE, frozenset[int]()
        while self.left:
            if patience.remaining():
                ahead = turn.take(self.left.names, self.listing.leases)
            if not ahead:
                break
            if not patience.remaining():
                turn.overtake(self.left.names, ahead)
                break
            time.sleep(min(pause * random.SystemRandom().uniform(0.5, 1.5), patience.remaining()))
            pause = min(pause * 2, _LONGEST_PAUSE)
            self.listing = self._look()
        if self.left:
            # Whoever had the turn may have published, and gone, since the listing.
            self.listing = self._look()

    def _look(self) -> Listing:
        """List, and subtract what bundles new to this process hold, in whatever bytes; these become parents."""
        listing = self._catalog.list()
        self._session.rule_out(listing.withdrawn)
        known = self._session.bundles | self._session.unusable | self._read
        unknown = {bundle: size for bundle, size in listing.visible.items() if bundle not in known}
        self._read.update(unknown)
        for done in self._catalog.knowing(listing).read(affordable_manifests(unknown)):
            manifest = done.value
            if manifest is None:
                self._session.give_up(done.item, done.fault)
                continue
            if self.environment.mismatches(manifest.environment):
                self._session.rule_out([done.item])
                continue
            otherwise = self._recorded.defined_otherwise(manifest.operators)
            held = [ref for ref in manifest.artifacts if (ref.kind, ref.key) not in otherwise]
            remaining = self.left.without(held, self._recorded.covered_by(manifest.files))
            if len(remaining) < len(self.left):
                self.parents.add(manifest.bundle)
            self.left = remaining
        return listing
