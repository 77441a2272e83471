"""The stand-in, and the journeys that tests look at, each made once."""

from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest

from tests.cuda.journeys import TRIPS, Journey
from tests.kit.cuda_standin import Hosts, build, missing, site_packages


def pytest_itemcollected(item: pytest.Item) -> None:
    """Mark all that is here: it needs an environment of its own, and takes long."""
    item.add_marker("nightly")


@pytest.fixture(scope="session")
def standin(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the stand-in, where torch is a build that it fits."""
    if reason := missing():
        pytest.skip(f"the stand-in for CUDA cannot be used: {reason}")
    return build(site_packages(), tmp_path_factory.mktemp("standin"))


@pytest.fixture(scope="session")
def journey_of(standin: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Journey]:
    """Give the journey of a trip, by its name in `TRIPS`."""

    @cache
    def made(name: str) -> Journey:
        return Journey(Hosts(standin, tmp_path_factory.mktemp(name) / "work"), TRIPS[name])

    return made


@pytest.fixture
def journey(request: pytest.FixtureRequest, journey_of: Callable[[str], Journey]) -> Journey:
    """Give the journey that a test is asked for by `every_trip` or `trips`."""
    return journey_of(request.param)


@pytest.fixture
def hosts(standin: Path, tmp_path: Path) -> Hosts:
    """Give hosts and a store that no other test uses."""
    return Hosts(standin, tmp_path / "work")
