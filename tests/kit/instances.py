"""Containers that have a name, and lose their disk when they die."""

import shutil
from dataclasses import dataclass, field
from pathlib import Path

from megacache._bundle import Manifest, Start
from megacache._cache.crash_guard import CrashGuard, StoreMarkers
from megacache._catalog import Catalog
from megacache._store import Store
from tests.kit.builders import artifact, bundle, environment, prefix_of

PLACE = prefix_of(environment())
ONE, OTHER = (bundle([artifact(key)]).manifest for key in "ab")


@dataclass(slots=True)
class Instance:
    """A container that has a name, and loses its disk whenever all of it dies."""

    store: Store
    disk: Path
    name: str = "pod-0"
    guards: list[CrashGuard] = field(default_factory=list)

    def starts(self, *loads: Manifest) -> set[str]:
        """Start a process in it that loads what is not suspected, and compiles; give what is."""
        guard = CrashGuard(self.disk)
        self.guards.append(guard)
        return self.warms(guard, *loads)

    def warms(self, guard: CrashGuard, *loads: Manifest) -> set[str]:
        """Let a process load what is not suspected, from the cache in the store, and compile; give what is."""
        markers = StoreMarkers(self.store, PLACE, guard.markers, self.name)
        guard.also_in(self.store.url, markers)
        suspects = set(markers.suspects(Catalog(self.store, PLACE).list().starts))
        guard.add([one for one in loads or [ONE] if one.bundle not in suspects])
        guard.arm()
        return suspects

    def survives(self) -> None:
        """Let all its processes come through."""
        while self.guards:
            self.guards.pop().disarm()

    def dies(self) -> None:
        """Let all its processes end without a word, and lose its disk."""
        while self.guards:
            self.guards.pop().after_fork()
        shutil.rmtree(self.disk, ignore_errors=True)


def left(store: Store) -> list[Start]:
    """Give the markers in a store."""
    return list(Catalog(store, PLACE).list().starts)


def up(disk: Path) -> set[str]:
    """Name the markers on a disk."""
    return {path.stem for path in disk.glob("*.json")}
