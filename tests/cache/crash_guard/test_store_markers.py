"""A marker in the store accuses what an instance had loaded that lost its disk as it died, the second time."""

import errno
import os
import shutil
import time
from dataclasses import replace
from pathlib import Path

import pytest

from megacache._bundle import Start, pack
from megacache._cache.crash_guard import CrashGuard, StoreMarkers
from megacache._cache.crash_guard.markers import SUSPICION_SECONDS
from megacache._catalog import Catalog
from megacache._runtime import Deadline
from megacache._store import Store
from tests.kit.builders import open_store
from tests.kit.instances import ONE, OTHER, PLACE, Instance, left, up

LARGE = pack({"loads": [ONE.bundle], "again": [ONE.bundle], "more": b"x" * (1 << 20)})


@pytest.fixture
def store() -> Store:
    """Open an empty store."""
    return open_store()


@pytest.fixture
def instance(store: Store, tmp_path: Path) -> Instance:
    """Name a container."""
    return Instance(store, tmp_path / "starts")


def leave(store: Store, like: Start, *, age: float, instance: str = "", survived: bool = False) -> Start:
    """Leave another marker that accuses a bundle, of some age."""
    began = int(time.time() - age)
    found = Start(instance=instance or like.instance, marker="f" * 32, began=began, survived=survived)
    store.create(PLACE.start(found), pack({"loads": [ONE.bundle], "again": [ONE.bundle]}))
    return found


def test_second_death_accuses(instance: Instance) -> None:
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
    """A process that lives for long and dies as it compiles again is the first to die within the hour."""
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


def test_start_that_says_that_it_survived_accuses_nobody(instance: Instance) -> None:
    """Where its marker could not be deleted, another object beside it says so."""
    for _ in range(2):
        instance.starts()
        (*_, own) = left(instance.store)
        instance.store.create(PLACE.start(replace(own, survived=True)), b"")
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


def test_process_whose_folder_is_cleared_is_no_death_to_itself(instance: Instance) -> None:
    """What this process has put up is of one that lives, wherever its local marker may be."""
    instance.starts()
    (guard,) = instance.guards
    for _ in range(2):
        shutil.rmtree(instance.disk)
        assert instance.warms(guard, OTHER) == set()


def test_folder_that_cannot_be_read_accuses_nobody(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where siblings cannot be seen, nobody is taken for gone."""
    for _ in range(2):
        instance.starts()
        instance.dies()

    def refuse(_: Path) -> None:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    monkeypatch.setattr(Path, "iterdir", refuse)
    assert instance.starts() == set()
    monkeypatch.undo()
    assert instance.starts() == {ONE.bundle}


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
        assert {one.marker for one in left(instance.store)} == up(instance.disk) != set()
        guard.disarm()
        assert (left(instance.store), up(instance.disk)) == ([], set())


def test_marker_comes_down_in_the_store_first(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A sibling that found it there alone would take the process for gone."""
    instance.starts()
    (guard,) = instance.guards
    seen = []
    delete = Store.delete

    def noted(store: Store, key: str) -> None:
        seen.append(len(up(instance.disk)))
        delete(store, key)

    monkeypatch.setattr(Store, "delete", noted)
    guard.disarm()
    assert seen == [1]


def test_process_that_loads_more_is_marked_with_all(instance: Instance) -> None:
    """Be it from the same cache or from another one, and while the marker of the first is up; each is then accused."""
    elsewhere = Instance(open_store(), instance.disk)
    for _ in range(2):
        assert instance.starts(ONE) == set()
        (guard,) = instance.guards
        assert elsewhere.warms(guard, OTHER) == set()
        instance.dies()
    assert instance.starts(ONE) == {ONE.bundle, OTHER.bundle}
    assert elsewhere.starts(OTHER) == {ONE.bundle, OTHER.bundle}


def test_process_that_loaded_nothing_has_none(instance: Instance) -> None:
    """What it dies of is nothing that megacache brought."""
    guard = CrashGuard(instance.disk)
    guard.also_in("cache", StoreMarkers(instance.store, PLACE, guard.markers, "pod-0"))
    guard.arm()
    assert left(instance.store) == []


def test_marker_stays_from_one_load_to_the_next(instance: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store is not asked for each chunk; a server that waits for its first request has none after a while."""
    monkeypatch.setattr("megacache._cache.crash_guard.guard.SURVIVAL_SECONDS", 0.5)
    guard = CrashGuard(instance.disk)
    guard.add([ONE])
    guard.also_in("cache", StoreMarkers(instance.store, PLACE, guard.markers, "pod-0"))
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


def test_old_markers_are_cleared_away(instance: Instance) -> None:
    """Any instance does it for all, also one that has loaded nothing; what is younger may be of one that lives."""
    instance.starts()
    (own,) = left(instance.store)
    instance.survives()
    leave(instance.store, own, age=SUSPICION_SECONDS + 60, instance="a" * 16)
    leave(instance.store, own, age=SUSPICION_SECONDS + 60, survived=True)
    younger = leave(instance.store, own, age=SUSPICION_SECONDS - 60, instance="b" * 16)
    guard = CrashGuard(instance.disk)
    markers = StoreMarkers(instance.store, PLACE, guard.markers, "pod-0")
    guard.also_in("cache", markers)
    markers.suspects(Catalog(instance.store, PLACE).list().starts)
    guard.disarm()
    assert left(instance.store) == [younger]


@pytest.mark.parametrize(
    "content",
    [b"", b"\xc1", pack([]), pack({"loads": [ONE.bundle]}), pack({"loads": 1, "again": 1}), LARGE],
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
    monkeypatch.setattr("megacache._cache.crash_guard.store_markers._MOST", 3)
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
