"""A store that fails while it has to take start markers harms no start, and makes none of them a death."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from megacache._cache.crash_guard import CrashGuard, StoreMarkers
from megacache._runtime import Deadline
from tests.kit.builders import open_store
from tests.kit.instances import ONE, OTHER, PLACE, Instance, left, up
from tests.kit.places import Place, timed
from tests.kit.servers import proxy

FAULTS: Mapping[str, proxy.Action] = {
    "hang": proxy.hang,
    "refused": proxy.status(403),
    "down": proxy.status(503),
    "reset": proxy.reset,
}
PATIENCE = 1.0
WRITING = r"^(DELETE|P(UT|OST)) .*\.(started|survived)"

pytestmark = pytest.mark.usefixtures("hurried", "impatient")


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Wait for no marker longer than a second."""
    monkeypatch.setattr("megacache._cache.crash_guard.guard.PATIENCE_SECONDS", PATIENCE)
    monkeypatch.setattr("megacache._cache.crash_guard.store_markers.PATIENCE_SECONDS", PATIENCE)
    caplog.set_level("WARNING", "megacache")


@pytest.fixture(params=["s3", "gs"])
def place(request: pytest.FixtureRequest, stores: Mapping[str, Place], name: str) -> Iterator[Place]:
    """Choose a store that can be made to fail."""
    found = stores[request.param].under(name)
    yield found
    found.heal()


@pytest.fixture
def instance(place: Place, tmp_path: Path) -> Instance:
    """Name a container."""
    return Instance(place.open(60), tmp_path / "starts")


def until(done: Callable[[], object]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + 30
    while not done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", ["P(UT|OST)", "GET"])
def test_start_goes_on(
    place: Place, instance: Instance, caplog: pytest.LogCaptureFixture, fault: str, verb: str
) -> None:
    """Its markers are not read, or not put up, and the log says why; a compilation does not wait for long, and once."""
    for _ in range(2):
        instance.starts()
        instance.dies()
    place.rules.fail(rf"^{verb} .*\.(started|survived)", FAULTS[fault])
    suspects = timed(lambda: instance.starts(ONE, OTHER), 2 * PATIENCE)
    assert suspects == (set() if verb == "GET" else {ONE.bundle})
    (guard,) = instance.guards
    timed(guard.disarm, PATIENCE)
    asked = len(place.rules.requests(WRITING))
    guard.arm()
    assert (len(place.rules.requests(WRITING)) == asked) == (verb != "GET")
    assert caplog.text.count("no start marker in the store") == (verb != "GET")


@pytest.mark.parametrize("fault", FAULTS)
def test_marker_that_cannot_be_deleted_is_no_death(place: Place, instance: Instance, fault: str) -> None:
    """Starts that survive say so by another object, and the next one loads what they had loaded."""
    place.rules.fail(r"^DELETE .*\.started", FAULTS[fault])
    for _ in range(3):
        assert instance.starts() == set()
        timed(instance.survives, PATIENCE)
        instance.dies()
    assert {one.survived for one in left(instance.store)} == {True, False}


def test_marker_that_the_store_takes_late_is_no_death(place: Place, instance: Instance) -> None:
    """A process that is told to end while its marker is on its way says that it survived."""
    place.rules.fail(r"^P(UT|OST) .*\.started", proxy.delay(PATIENCE / 2))

    def end(*_: object) -> None:
        instance.guards[-1].disarm()

    before = signal.signal(signal.SIGUSR1, end)
    try:
        for _ in range(3):
            threading.Timer(PATIENCE / 4, os.kill, (os.getpid(), signal.SIGUSR1)).start()
            assert instance.starts() == set()
            instance.dies()
    finally:
        signal.signal(signal.SIGUSR1, before)
    assert sum(one.survived for one in left(instance.store)) == 3


def test_marker_that_could_not_be_taken_down_is_tried_again(
    place: Place, instance: Instance, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A store that fails for a while does not keep it for good; one that fails on is not asked for ever."""
    monkeypatch.setattr("megacache._cache.crash_guard.guard.SURVIVAL_SECONDS", 0.1)
    instance.starts()
    (guard,) = instance.guards
    place.rules.fail(WRITING, proxy.status(403))
    guard.disarm_later()
    until(lambda: guard._timer is None and not guard._tries)
    (own,) = left(instance.store)
    place.heal()
    guard.arm()
    guard.disarm_later()
    until(lambda: not left(instance.store))
    assert own.marker not in up(instance.disk)


def test_process_that_ends_tries_once(place: Place, instance: Instance) -> None:
    """It waits for the store no longer than it must, however often its end is told."""
    instance.starts()
    (guard,) = instance.guards
    place.rules.fail(WRITING, proxy.hang)
    timed(lambda: guard.disarm(Deadline.after(PATIENCE)), PATIENCE)
    asked = len(place.rules.requests(WRITING))
    guard.disarm(Deadline.after(PATIENCE))
    assert len(place.rules.requests(WRITING)) == asked


def test_store_that_hangs_does_not_keep_a_marker_in_another(place: Place, instance: Instance) -> None:
    """Markers come down side by side."""
    instance.starts()
    (guard,) = instance.guards
    well = Instance(open_store(), instance.disk)
    well.warms(guard)
    place.rules.fail(WRITING, proxy.hang)
    guard.disarm()
    assert left(well.store) == []
    assert left(instance.store) != []


def test_marker_for_which_there_was_no_time_is_put_up_later(place: Place, instance: Instance) -> None:
    """A warm start whose time is over does without, and the compilation after it does not."""
    guard = CrashGuard(instance.disk)
    instance.guards.append(guard)
    guard.add([ONE])
    guard.also_in("cache", StoreMarkers(place.open(60), PLACE, guard.markers, instance.name))
    with guard.armed(Deadline.after(0.000_001)):
        assert left(instance.store) == []
    guard.arm()
    assert len(left(instance.store)) == 1
    instance.survives()
    assert left(instance.store) == []


def test_timer_that_has_fired_disarms_no_compilation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One that begins at that moment keeps its marker."""
    monkeypatch.setattr("megacache._cache.crash_guard.guard.SURVIVAL_SECONDS", 0.1)
    instance = Instance(open_store(), tmp_path / "starts")
    instance.starts()
    (guard,) = instance.guards
    with guard._lock:
        guard.disarm_later()
        timer = guard._timer
        assert timer is not None
        assert timer.finished.wait(0.5) is False
        guard.arm()
    timer.join(30)
    assert len(left(instance.store)) == 1
    guard.disarm()


def test_nobody_waits_for_a_marker_that_comes_down(place: Place, instance: Instance) -> None:
    """A compilation that begins meanwhile has a marker of its own."""
    instance.starts()
    (guard,) = instance.guards
    place.rules.fail(r"^DELETE .*\.started", proxy.hang)
    down = threading.Thread(target=guard.disarm)
    down.start()
    while not place.rules.requests("^DELETE"):
        assert down.is_alive()
    guard.arm()
    assert len(up(instance.disk)) == 2
    down.join(60)
    assert len(up(instance.disk)) == 1


def test_threads_warm_at_once(tmp_path: Path) -> None:
    """Caches that are added while markers go up and down spoil nothing."""
    instance = Instance(open_store(), tmp_path / "starts")
    instance.starts()
    (guard,) = instance.guards
    faults: list[BaseException] = []

    def warm(number: int) -> None:
        other = Instance(open_store(), instance.disk, f"pod-{number}")
        try:
            for _ in range(20):
                other.warms(guard)
                guard.disarm()
        except BaseException as error:  # noqa: BLE001 - shown by the test
            faults.append(error)

    threads = [threading.Thread(target=warm, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    assert faults == []
    instance.survives()
    assert left(instance.store) == []


def test_process_without_a_thread_to_spare_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its marker comes down at its end."""
    instance = Instance(open_store(), tmp_path / "starts")
    instance.starts()
    (guard,) = instance.guards

    def refuse(_: threading.Timer) -> None:
        raise RuntimeError

    monkeypatch.setattr(threading.Timer, "start", refuse)
    with guard.armed(Deadline.after(10)):
        pass
    assert len(left(instance.store)) == 1
    monkeypatch.undo()
    guard.disarm()
    assert left(instance.store) == []
