"""Stores that answer what was true earlier, clocks that are wrong, and stores that nobody listens for."""

from collections.abc import Mapping
from datetime import UTC, datetime, tzinfo

import pytest

from megacache._bundle import Artifact, parse_blob
from tests.kit import faulty_disk
from tests.kit.builders import artifacts, bundle, upload
from tests.kit.faults import PATIENT, Fault
from tests.kit.places import STEPS, Place, timed, verdicts
from tests.kit.servers import HOST, free_port, proxy
from tests.kit.torchless import Compiler

STALE = Fault(wire=proxy.stale, disk=faulty_disk.stale)
DOWN = Fault(wire=proxy.status(503))
OURS, THEIRS = artifacts(2, seed=1), artifacts(2, seed=2)
IN_A_HURRY = 4.0


@pytest.fixture
def behind(place: Place, compiler: Compiler) -> Place:
    """Give a store whose listing was made before others published to it."""
    assert compiler.warm(place.url, place.storage_options, PATIENT).status == "miss"
    upload(place.open(), bundle(THEIRS))
    place.fail("list", STALE)
    return place


def test_what_is_not_listed_yet_is_a_miss(behind: Place, compiler: Compiler) -> None:
    """A warm start that is shown an old listing misses, asks for nothing else, and loads once the listing is right."""
    missed = compiler.warm(behind.url, behind.storage_options, PATIENT)
    assert (missed.status, missed.error) == ("miss", None)
    assert behind.rules.requests(STEPS["chunk"]) == []
    behind.heal()
    assert compiler.warm(behind.url, behind.storage_options, PATIENT).status == "loaded"


@pytest.mark.parametrize(("compiled", "status", "bundles"), [(OURS, "published", 2), (THEIRS, "duplicate", 1)])
def test_publishing_by_an_old_listing_loses_nothing(
    behind: Place, compiler: Compiler, compiled: list[Artifact], status: str, bundles: int
) -> None:
    """Who does not see what others published adds a bundle, or finds its name taken; both are whole afterwards."""
    compiler.compile(*compiled)
    assert compiler.publish(behind.url, behind.storage_options, PATIENT).status == status
    behind.heal()
    assert [verdict.faults for verdict in verdicts(behind.open())] == [()] * bundles
    assert len(compiler.warm(behind.url, behind.storage_options, PATIENT).bundles) == bundles


@pytest.mark.parametrize("years", [(2099, 1999), (1999, 2099)])
@pytest.mark.parametrize("place", ["disk"], indirect=True)
def test_clocks_of_publishers_do_not_matter(
    place: Place, compiler: Compiler, monkeypatch: pytest.MonkeyPatch, years: tuple[int, int]
) -> None:
    """A bundle is loaded after those that its process knew, whatever the clocks of both hosts said."""
    for year, compiled in zip(years, (OURS, [*OURS, *THEIRS]), strict=True):
        monkeypatch.setattr("megacache._bundle.bundle.datetime", clock(year))
        compiler.compile(*compiled)
        assert compiler.publish(place.url, place.storage_options, PATIENT).status == "published"
    assert compiler.warm(place.url, place.storage_options, PATIENT).status == "loaded"
    loaded = [sorted(one.key for one in parse_blob(blob)) for blob in compiler.loaded]
    assert loaded == [[one.key for one in OURS], [one.key for one in THEIRS]]


def clock(year: int) -> type[datetime]:
    """Make a clock that is years off."""

    class Clock(datetime):
        @classmethod
        def now(cls, tz: tzinfo | None = None) -> "Clock":
            return cls(year, 1, 1, tzinfo=tz or UTC)

    return Clock


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("place", ["s3", "gs"], indirect=True)
def test_nobody_listens(place: Place, compiler: Compiler) -> None:
    """A store that refuses connections is unavailable, well before the deadline, for both verbs."""
    nowhere = {**place.storage_options, "endpoint_url": f"http://{HOST}:{free_port()}"}
    compiler.compile(*OURS)
    for verb in (compiler.warm, compiler.publish):
        result = timed(lambda verb=verb: verb(place.url, nowhere, PATIENT), PATIENT)  # type: ignore[misc]
        assert result.status == "unavailable"
        assert "onnect" in result.reason
        assert place.url in result.reason


@pytest.mark.parametrize("place", ["s3", "gs"], indirect=True)
def test_pauses_between_tries_end_at_the_deadline(
    place: Place, compiler: Compiler, stores: Mapping[str, Place]
) -> None:
    """However long a client would go on trying, at its own pace, the deadline holds."""
    place.fail("list", DOWN)
    result = timed(lambda: compiler.warm(place.url, place.storage_options, IN_A_HURRY), IN_A_HURRY)
    assert result.status == "unavailable"
    assert stores[place.kind].url in result.reason
    assert 1 < len(place.rules.requests(STEPS["list"])) <= 3
