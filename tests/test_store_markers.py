"""A marker in the store accuses what an instance had loaded that lost its disk as it died, the second time in a row."""

import shutil
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from megacache import _crash_guard, _store_markers
from megacache._catalog import Catalog
from megacache._crash_guard import CrashGuard
from megacache._deadline import Deadline
from megacache._document import pack
from megacache._layout import Start
from megacache._manifest import Manifest
from megacache._markers import SUSPICION_SECONDS
from megacache._store import Store
from megacache._store_markers import FORGOTTEN_SECONDS
from tests.builders import artifact, bundle, environment, open_store, prefix_of
from tests.places import Place, timed
from tests.servers import proxy

PLACE = prefix_of(environment())
ONE, OTHER = (bundle([artifact(key)]).manifest for key in "ab")
MARKERS = r"\.started"


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
        there = guard.also_in(self.store, PLACE, self.name)
        suspects = set(there.suspects(Catalog(self.store, PLACE).list().starts))
        guard.add([one for one in loads or [ONE] if one.bundle not in suspects])
        guard.arm()
        self.guards.append(guard)
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


@pytest.fixture
def store() -> Store:
    """Open an empty store."""
    return open_store()


@pytest.fixture
def instance(store: Store, tmp_path: Path) -> Instance:
    """Name a container."""
    return Instance(store, tmp_path / "starts")


def left(store: Store) -> list[Start]:
    """Give the markers in a store."""
    return list(Catalog(store, PLACE).list().starts)


def leave(store: Store, like: Start, *, age: float, **changes: str) -> Start:
    """Leave another marker that accuses a bundle, of some age."""
    found = Start(instance=changes.get("instance", like.instance), marker="f" * 32, began=int(time.time() - age))
    store.create(PLACE.start(found), pack({"loads": [ONE.bundle], "again": [ONE.bundle]}))
    return found


def test_second_death_in_a_row_accuses(instance: Instance) -> None:
    """One may have come from outside; what both had loaded is left out then, and by every start of the hour."""
    for loads, suspects in (([ONE, OTHER], set()), ([ONE], set()), ([ONE], {ONE.bundle}), ([ONE], {ONE.bundle})):
        assert instance.starts(*loads) == suspects
        instance.dies()


def test_start_that_goes_well_leaves_nothing(instance: Instance) -> None:
    """Its own marker is gone once it has survived."""
    instance.starts()
    assert len(left(instance.store)) == 1
    instance.survives()
    assert left(instance.store) == []


def test_doubt_ends(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that lives for long and dies as it compiles again has not died in a row with what was there before."""
    instance.starts()
    instance.dies()
    instance.starts()
    instance.survives()
    instance.starts()
    (guard,) = instance.guards
    guard.disarm()
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() + SUSPICION_SECONDS + 60)
    guard.arm()
    instance.dies()
    assert instance.starts() == set()


def test_processes_that_die_together_are_one_death(instance: Instance) -> None:
    """However many ranks a container has, and whichever of them began late."""
    for suspects in (set(), set(), {ONE.bundle}):
        assert [instance.starts() for _ in range(3)] == [suspects] * 3
        instance.dies()


def test_process_whose_disk_is_there_is_judged_by_it(instance: Instance) -> None:
    """A sibling that lives is not gone, nor is one that was killed while the container went on."""
    for _ in range(3):
        assert instance.starts() == set()
        instance.guards.pop().after_fork()


@pytest.mark.parametrize(("name", "folder"), [("pod-1", "starts"), ("pod-0", "others")])
def test_other_instances_do_not_know_each_other(instance: Instance, tmp_path: Path, name: str, folder: str) -> None:
    """What died elsewhere, or with another cache folder, may still be alive for all that a start can tell."""
    for _ in range(2):
        instance.starts()
        instance.dies()
    assert Instance(instance.store, tmp_path / folder, name).starts() == set()
    assert instance.starts() == {ONE.bundle}


def test_instance_is_not_named_in_the_store(store: Store, tmp_path: Path) -> None:
    """Nobody reads in the store what runs where."""
    Instance(store, tmp_path / "starts", "secret-host").starts()
    assert [entry.key for entry in store.list() if "secret" in entry.key] == []
    assert len(left(store)) == 1


def test_marker_is_in_both_places_or_in_none(instance: Instance) -> None:
    """Whenever the process compiles it is put up anew, under the name that it has beside the local cache."""
    instance.starts()
    (guard,) = instance.guards
    for _ in range(2):
        guard.arm()
        assert [one.marker for one in left(instance.store)] == [guard.markers.name]
        guard.disarm()
        assert left(instance.store) == []


def test_process_that_loaded_nothing_has_none(instance: Instance) -> None:
    """What it dies of is nothing that megacache brought."""
    guard = CrashGuard(instance.disk)
    guard.also_in(instance.store, PLACE, "pod-0")
    guard.arm()
    assert left(instance.store) == []


def test_marker_stays_from_one_load_to_the_next(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is not asked for each chunk; a server that waits for its first request has none after a while."""
    monkeypatch.setattr(_crash_guard, "SURVIVAL_SECONDS", 0.5)
    guard = CrashGuard(instance.disk)
    guard.add([ONE])
    guard.also_in(instance.store, PLACE, "pod-0")
    names = []
    for _ in range(2):
        with guard.armed(Deadline.after(10)):
            names += [one.marker for one in left(instance.store)]
    assert len(names) == 2
    assert len(set(names)) == 1
    deadline = time.monotonic() + 30
    while left(instance.store):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_forked_child_leaves_its_parents_marker(instance: Instance) -> None:
    """It has one beside the local cache, and its connections to the store are its parent's."""
    instance.starts()
    (guard,) = instance.guards
    before = left(instance.store)
    guard.after_fork()
    guard.disarm()
    guard.arm()
    assert left(instance.store) == before


@pytest.mark.parametrize("direction", [1, -1])
def test_suspicion_ends(instance: Instance, direction: int) -> None:
    """After an hour a bundle gets another chance, by whichever clock; the next start that goes well clears up."""
    instance.starts()
    (own,) = left(instance.store)
    instance.survives()
    recent = leave(instance.store, own, age=direction * (SUSPICION_SECONDS - 60))
    assert instance.starts() == {ONE.bundle}
    instance.survives()
    instance.store.delete(PLACE.start(recent))
    leave(instance.store, own, age=direction * (SUSPICION_SECONDS + 60))
    assert instance.starts() == set()
    instance.survives()
    assert left(instance.store) == []


def test_markers_of_instances_that_never_return_are_cleared_away(instance: Instance) -> None:
    """After a day any instance does it; before, it may be of a process that lives."""
    instance.starts()
    (own,) = left(instance.store)
    older, younger = (
        leave(instance.store, own, age=FORGOTTEN_SECONDS + seconds, instance=digit * 16)
        for digit, seconds in (("a", 60), ("b", -60))
    )
    instance.survives()
    assert set(left(instance.store)) == {older, younger}
    instance.starts()
    instance.survives()
    assert left(instance.store) == [younger]


@pytest.mark.parametrize(
    "content",
    [b"", b"\xc1", pack([]), pack({"loads": [ONE.bundle]}), pack({"loads": 1, "again": 1}), b"\x80" * (1 << 21)],
)
def test_marker_that_is_none_accuses_nobody(instance: Instance, content: bytes) -> None:
    """What cannot be read is passed over, and what is too large is not read."""
    instance.starts()
    (own,) = left(instance.store)
    instance.survives()
    instance.store.create(PLACE.start(Start(instance=own.instance, marker="f" * 32, began=own.began)), content)
    assert instance.starts() == set()


def test_markers_are_read_within_bounds(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many somebody has put there, a start reads so many, the newest, and clears away so many."""
    instance.starts()
    (own,) = left(instance.store)
    instance.survives()
    document = pack({"loads": [ONE.bundle], "again": [ONE.bundle]})
    for age in (*range(5), *range(4_000, 4_005)):
        found = Start(instance=own.instance, marker=f"{age:032x}", began=own.began - age)
        instance.store.create(PLACE.start(found), document)
    monkeypatch.setattr(_store_markers, "_MOST", 3)
    read: list[str] = []
    whole = Store.read

    def noted(store: Store, key: str, *, size: int) -> bytes:
        read.append(key)
        return whole(store, key, size=size)

    monkeypatch.setattr(Store, "read", noted)
    assert instance.starts(ONE, OTHER) == {ONE.bundle}
    assert sorted(key.split(".")[1] for key in read) == [f"{age:032x}" for age in range(3)]
    instance.survives()
    assert len(left(instance.store)) == 7


FAULTS: Mapping[str, proxy.Action] = {
    "hang": proxy.hang,
    "refused": proxy.status(403),
    "down": proxy.status(503),
    "reset": proxy.reset,
}


@pytest.fixture(params=["s3", "gs"])
def faulty_instance(
    request: pytest.FixtureRequest, stores: Mapping[str, Place], name: str, tmp_path: Path
) -> Iterator[tuple[Place, Instance]]:
    """Name a container that has died twice, with its markers in a store that can be made to fail."""
    place = stores[request.param].under(name)
    instance = Instance(place.open(60), tmp_path / "starts")
    for _ in range(2):
        instance.starts()
        instance.dies()
    assert len(left(instance.store)) == 2
    yield place, instance
    place.heal()


@pytest.mark.usefixtures("hurried")
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("verb", ["DELETE", "P(UT|OST)", "GET"])
def test_store_that_fails_harms_no_start(
    faulty_instance: tuple[Place, Instance],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fault: str,
    verb: str,
) -> None:
    """Its markers are not read, or not put up, and the log says why; a compilation does not wait for long, and once."""
    monkeypatch.setattr(_crash_guard, "PATIENCE_SECONDS", 1.0)
    monkeypatch.setattr(_store_markers, "PATIENCE_SECONDS", 1.0)
    caplog.set_level("WARNING", "megacache")
    place, instance = faulty_instance
    place.rules.fail(rf"^{verb} .*{MARKERS}", FAULTS[fault])
    suspects = timed(lambda: instance.starts(ONE, OTHER), 3.0)
    assert suspects == (set() if verb == "GET" else {ONE.bundle})
    (guard,) = instance.guards
    timed(guard.disarm, 1.0)
    asked = place.rules.requests(rf"^(DELETE|P(UT|OST)) .*{MARKERS}")
    guard.arm()
    assert (place.rules.requests(rf"^(DELETE|P(UT|OST)) .*{MARKERS}") == asked) == (verb != "GET")
    assert caplog.text.count("no start marker in the store") == (verb != "GET")
