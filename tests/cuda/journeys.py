"""A program's way from a cold start through a store to warm starts on other hosts."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pytest

from tests.kit.cuda_standin import Hosts, Start
from tests.kit.cuda_standin.programs import PROGRAMS

POOL = {"TORCHINDUCTOR_COMPILE_THREADS": "2"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Trip:
    """What is started, and how."""

    program: str
    """One of `programs`."""
    graphs: tuple[int, int] = (1, 1)
    """The graphs that Inductor and AOTAutograd look up; forward and backward are one of the latter."""
    begins_again: bool = False
    """True if PyTorch traces a graph twice, for a float became an input, and counts the first time as a miss."""
    tunes: bool = False
    """True if it measures kernels when it is cold."""
    environment: Mapping[str, str] = field(default_factory=dict)
    cache_folder: bool = True
    """False to take PyTorch's default, which bears the user's name."""


def _trip(program: str, *, graphs: tuple[int, int] = (1, 1), begins_again: bool = False, tunes: bool = False) -> Trip:
    return Trip(program=program, graphs=graphs, begins_again=begins_again, tunes=tunes)


_OF_PROGRAMS = (
    _trip("pointwise"),
    _trip("train", graphs=(2, 1)),
    _trip("growing", graphs=(2, 2)),
    _trip("dynamic", begins_again=True),
    _trip("growing_norm", graphs=(3, 3), begins_again=True),
    _trip("tuned", tunes=True),
    _trip("matmul", tunes=True),
    _trip("user_kernel", tunes=True),
    _trip("user_outside"),
    _trip("user_before"),
    _trip("user_tuned", tunes=True),
    _trip("cudagraphs"),
    _trip("mixed", graphs=(2, 2)),
    _trip("flex"),
)
POOLED = ("pointwise", "train", "tuned", "matmul", "user_outside")
TRIPS: Mapping[str, Trip] = {
    **{trip.program: trip for trip in _OF_PROGRAMS},
    "default_folder": Trip(program="pointwise", cache_folder=False),
    **{
        f"{trip.program}_pool": Trip(program=trip.program, graphs=trip.graphs, tunes=trip.tunes, environment=POOL)
        for trip in _OF_PROGRAMS
        if trip.program in POOLED
    },
}
assert {trip.program for trip in TRIPS.values()} == PROGRAMS.keys() - {"user_gone"}


def trips(*names: str) -> pytest.MarkDecorator:
    """Ask for the journeys of some trips, one test each."""
    return pytest.mark.parametrize("journey", names, indirect=True)


every_trip = trips(*TRIPS)


class Journey:
    """The starts of a trip; each is made when it is first looked at, after those that it builds on."""

    def __init__(self, hosts: Hosts, trip: Trip) -> None:
        self.hosts = hosts
        self.trip = trip

    @cached_property
    def cold(self) -> Start:
        """The start that compiles everything and publishes it."""
        return self._started()

    @cached_property
    def warm(self) -> Start:
        """The first start after that."""
        return self._after(self.cold)

    @cached_property
    def without_compilers(self) -> Start:
        """A start where no C compiler works."""
        return self._after(self.cold, compilers=False)

    def _after(self, cold: Start, *, compilers: bool = True) -> Start:
        assert cold.told, cold.stderr
        return self._started(compilers=compilers)

    def _started(self, *, compilers: bool = True) -> Start:
        trip = self.trip
        return self.hosts.start(
            trip.program, compilers=compilers, cache_folder=trip.cache_folder, environment=trip.environment
        )
