"""What happens to a fleet."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

OLD, NEW = "v1", "v2"
MODELS: Mapping[str, Sequence[str]] = {OLD: ("inference", "broken"), NEW: ("inference", "training")}
"""Models of `tests.kit.models` in each version of what is served; the versions share one."""
RANKS = 8
"""Workers of a node."""
_WAIT = 240.0

_H100 = {"device_type": "cuda", "device_name": "NVIDIA H100 80GB HBM3", "device_capability": "9.0"}
_H200 = {"device_type": "cuda", "device_name": "NVIDIA H200", "device_capability": "9.0"}
_AVX2 = {"cpu_capability": "AVX2", "cpu_extensions": "avx2"}
_AVX512 = {"cpu_capability": "AVX512", "cpu_extensions": "avx2 avx512 avx512_vnni"}
THIS: Mapping[str, str] = {}
"""This machine as it is."""
KINDS: Mapping[str, Mapping[str, str]] = {
    "this machine": THIS,
    "H100, AVX512": {**_H100, **_AVX512},
    "H100, AVX2": {**_H100, **_AVX2},
    "H200, AVX512": {**_H200, **_AVX512},
    "CPU, AVX2": _AVX2,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """Where a worker is, and what it serves."""

    version: str = OLD
    kind: str = "this machine"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    """A fleet, and what happens to it."""

    name: str
    told: str
    wait: float = _WAIT
    """Seconds for which a worker waits for another; 0 without single flight."""
    kinds: Sequence[str] = ("this machine",)
    version: str = OLD
    """What is served."""
    deploys: bool = False
    """True if the new version takes the place of the old one bit by bit."""
    parts: bool = False
    """True if each worker serves some of the models only."""
    killed: float = 0.0
    """Share of the workers that are killed, the first one in any case."""
    throttled: float = 0.0
    """Share of the requests that the store refuses with 503 SlowDown."""

    @property
    def versions(self) -> Sequence[str]:
        """The versions that are served."""
        return (self.version, NEW) if self.deploys else (self.version,)

    @property
    def places(self) -> Sequence[Place]:
        """All that its workers may be."""
        return [Place(version=version, kind=kind) for version in self.versions for kind in self.kinds]

    def place(self, number: int, workers: int, dice: random.Random) -> Place:
        """Say what a worker is; the workers of a node have one kind."""
        kind = self.kinds[number // RANKS % len(self.kinds)]
        new = self.deploys and dice.random() < number / workers
        return Place(version=NEW if new else self.version, kind=kind)


SCENARIOS = (
    Scenario(name="cold", told="an empty cache, and nobody waits", wait=0.0),
    Scenario(name="single-flight", told="an empty cache, one compiles and the others wait"),
    Scenario(
        name="parts", told="an empty cache, nobody waits, and each serves some of the models", wait=0.0, parts=True
    ),
    Scenario(name="deploy", told="a new version takes the place of the old one bit by bit", deploys=True),
    Scenario(name="mixed", told="three kinds of GPU workers and two of CPU workers", kinds=tuple(KINDS)),
    Scenario(name="killed", told="one worker in ten is killed, the first while it compiles", killed=0.1),
    Scenario(name="throttled", told="the store refuses one request in five with 503", throttled=0.2),
)
