"""Each fault of a store, at each step, against local disk, S3 and GCS: what it comes to, and what it costs.

A fault is told by status and reason, within the deadline; it leaves nothing half done, and the same process succeeds
once it is over. Faults are made by a proxy in front of real servers, and by a filesystem on disk. The clients try again
by themselves, and megacache tries again only what they leave: a body that broke off (s3fs does, but around botocore, so
that one object took a hundred requests), and a create that lost a race on S3. Requests for one object:

| fault, for good           | S3                         | GCS                        | disk |
|---------------------------|----------------------------|----------------------------|------|
| hang, slow drip           | 1 in 10 s, to the deadline | 1 in 30 s, to the deadline | 1    |
| connection reset          | 3 (6 for a GET)            | 6 (12 for a GET)           | -    |
| 429, 500, 503             | 3                          | 6, within half a minute    | 1    |
| body truncated            | 3                          | 6                          | 1    |
| 403, 404, 507, bad clock  | 1                          | 1                          | 1    |
| 501 to a write            | 2, one without a condition | -                          | -    |
| other bytes               | 1                          | 1                          | 1    |

Of a fault that is over before the last of these nothing is seen. What no client can notice: someone between who answers
a LIST or a PUT of S3 with a page of his own and a good status, which TLS excludes.
"""

import threading
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from megacache._cache.cache_folder import CacheFolder
from megacache._catalog import Transferred
from megacache._store import Store
from megacache.errors import DeadlineError, MegacacheError
from tests.kit.builders import artifacts, bundle, compiled_file, noise, open_store, upload
from tests.kit.faults import FAULTS, HURRIED, PATIENT, Fault
from tests.kit.places import STEPS, Place, cases, check_told, copy_all, timed, verdicts
from tests.kit.torchless import Compiler

pytestmark = pytest.mark.usefixtures("hurried")
OBJECTS = {"list": 3, "manifest": 1, "chunk": 2, "upload": 2, "announce": 1}
"""How many each step asks for, at most: an empty folder of GCS is listed twice, and a miss lists once more."""
COMPILED = artifacts(3, size=20_000)
LIBRARY = compiled_file(content=noise(20_000))


@pytest.fixture(scope="module", autouse=True)
def _published(stores: Mapping[str, Place]) -> None:
    """Put a cache into each store that all warm starts read."""
    for place in stores.values():
        upload(place.under("published").open(), bundle(COMPILED, files=[LIBRARY]))


@pytest.fixture(autouse=True)
def _healthy() -> Iterator[None]:
    """Check that no test leaves a thread that would keep the process from ending."""
    before = set(threading.enumerate())
    yield
    assert [thread for thread in set(threading.enumerate()) - before if not thread.daemon] == []


def check_cost(place: Place, fault: Fault, step: str) -> None:
    """Check that no more was asked than the fault may cost."""
    asked = place.rules.requests(STEPS[step])
    assert len(asked) <= OBJECTS[step] * fault.tries[place.kind], asked
    assert asked or fault.seconds == HURRIED  # a machine that is busy may not have come so far


@pytest.mark.parametrize(("place", "told", "step"), cases("list", "manifest", "chunk"), indirect=["place"])
def test_warm(place: Place, told: str, step: str, stores: Mapping[str, Place], compiler: Compiler) -> None:
    """A warm start tells the fault and loads nothing, or overcomes it; afterwards the same process loads all."""
    fault, place = FAULTS[told], stores[place.kind].under("published")
    place.fail(step, fault)
    result = timed(lambda: compiler.warm(place.url, place.storage_options, fault.seconds), fault.seconds)
    check_cost(place, fault, step)
    assert result.status == (fault.warm.get(step, "unavailable") if fault.cause else "loaded"), result.reason
    assert bool(compiler.loaded) == bool(result)
    if not result:
        check_told(fault, place, result.reason)
    place.heal()
    again = compiler.warm(place.url, place.storage_options, PATIENT)
    assert (again.status, again.files, again.warnings) == ("loaded", 1, ())


@pytest.mark.parametrize("place", ["disk"], indirect=True)
def test_fault_of_the_store_is_the_one_that_is_told(
    place: Place, stores: Mapping[str, Place], compiler: Compiler, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What has come to nothing is not marked as loaded: the time for that may be over as well."""

    def late(*_: object) -> None:
        raise DeadlineError("too late to mark it")

    monkeypatch.setattr(CacheFolder, "expect", late)
    place = stores[place.kind].under("published")
    place.fail("chunk", FAULTS["flipped"])
    result = compiler.warm(place.url, place.storage_options, PATIENT)
    check_told(FAULTS["flipped"], place, result.reason)


@pytest.mark.parametrize(("place", "told", "step"), cases("list", "upload", "announce"), indirect=["place"])
def test_publish(place: Place, told: str, step: str, compiler: Compiler) -> None:
    """A publication tells the fault, or overcomes it; nothing incomplete is visible, and the next try succeeds."""
    fault = FAULTS[told]
    compiler.compile(*COMPILED, files=[LIBRARY])
    place.fail(step, fault)
    result = timed(lambda: compiler.publish(place.url, place.storage_options, fault.seconds), fault.seconds)
    check_cost(place, fault, step)
    expected = "unavailable" if fault.cause else "published"
    assert result.status == fault.publish.get(step, expected), result.reason
    if not result:
        check_told(fault, place, result.reason)
    place.heal()
    store = place.open()
    assert all(not verdict.faults for verdict in verdicts(store))
    assert compiler.publish(place.url, place.storage_options, PATIENT)
    assert [verdict.faults for verdict in verdicts(store)] == [()]


def copy(source: Store, target: Store) -> Transferred | MegacacheError:
    """Copy all that is visible, and give what went wrong."""
    try:
        return copy_all(source, target)
    except MegacacheError as error:
        return error


@pytest.mark.parametrize(("place", "told", "step"), cases("list", "manifest", "chunk", copied=True), indirect=["place"])
def test_copy_from(place: Place, told: str, step: str, stores: Mapping[str, Place], tmp_path: Path) -> None:
    """A copy from a store that fails tells it and leaves nothing incomplete; running it again takes it up."""
    fault, place, target = FAULTS[told], stores[place.kind].under("published"), open_store(tmp_path.as_uri())
    place.fail(step, fault)
    done = timed(lambda: copy(place.open(fault.seconds), target), fault.seconds)
    check_cost(place, fault, step)
    check_copy(done, fault, place)
    place.heal()
    check_taken_up(place.open(), target)


@pytest.mark.parametrize(
    ("place", "told", "step"), cases("list", "upload", "announce", copied=True), indirect=["place"]
)
def test_copy_to(place: Place, told: str, step: str) -> None:
    """A copy to a store that fails tells it and leaves nothing incomplete; running it again takes it up."""
    fault, source = FAULTS[told], open_store()
    upload(source, bundle(COMPILED, files=[LIBRARY]))
    place.fail(step, fault)
    done = timed(lambda: copy(source, place.open(fault.seconds)), PATIENT)
    check_cost(place, fault, step)
    check_copy(done, fault, place)
    place.heal()
    target = place.open()
    assert all(not verdict.faults for verdict in verdicts(target))
    check_taken_up(source, target)


def check_copy(done: Transferred | MegacacheError, fault: Fault, place: Place) -> None:
    """Check that a fault was told, or overcome."""
    if isinstance(done, MegacacheError):
        check_told(fault, place, str(done))
    elif fault.cause:
        ((failed, error),) = done.failed
        check_told(fault, place, f"{failed}: {error}")
    else:
        assert not done.failed


def check_taken_up(source: Store, target: Store) -> None:
    """Check that another run ends with all bundles, each sound."""
    done = copy(source, target)
    assert isinstance(done, Transferred)
    assert (len(done.copied) + len(done.present), done.failed) == (1, ())
    assert verdicts(target) == verdicts(source)
