"""Who publishes the same at the same moment stores it once, and nobody waits for long, or for what is not the same."""

import pickle
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import pytest

from megacache._bundle import Artifact, LeaseName, identify_artifact
from megacache._cache import PublishResult, PublishStatus, publish
from megacache._cache.publish import Publication
from megacache._cache.recording import Found, Recorded
from megacache._cache.session import Session
from megacache._catalog import Catalog, Lease, Turn
from megacache._catalog.turns import _content, _marks
from megacache._store import Store
from megacache.errors import AccessError, UnavailableError
from tests.kit.builders import Graph, artifact, call_on, environment, open_store, prefix_of

HERE = environment()
PLACE = prefix_of(HERE)


def graph(name: str, compilation: int = 0) -> Artifact:
    """Make what a compilation of a graph leaves: other bytes each time."""
    return artifact(f"f{name}", pickle.dumps(Graph([str(compilation)], "s0 <= 64")))


def recorded(artifacts: Iterable[Artifact]) -> Recorded:
    """Make what a process has compiled."""
    found = Found(artifacts={identify_artifact(one): one for one in artifacts})
    return Recorded(found=found, guard={}, known=False, probes=(), environment=HERE, warnings=())


def publish_one(store: Store, *artifacts: Artifact, most: int | None = None) -> PublishResult:
    """Publish as a process would that has never heard of this cache."""
    return Publication(call_on(store), recorded(artifacts), Session(), max_bytes=most).run()


def publish_together(folder: Path, parts: Sequence[str]) -> list[PublishResult]:
    """Let as many processes publish at one moment as there are parts, each of them graphs of its own compilation."""
    start, results = threading.Barrier(len(parts)), list[PublishResult]()

    def run(number: int, names: str) -> None:
        store = open_store(str(folder))
        start.wait()
        results.append(publish_one(store, *(graph(name, number) for name in names)))

    threads = [threading.Thread(target=run, args=one) for one in enumerate(parts)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def names(store: Store, ending: str) -> list[str]:
    """Name the objects with this in their names."""
    return [entry.key for entry in store.list() if ending in entry.key]


def leave(store: Store, *artifacts: Artifact) -> None:
    """Leave what a publisher of graphs leaves that was killed."""
    marks = _marks(recorded(artifacts).news(Session()).names)
    assert Lease.claim(store, PLACE, 1, _content(marks)) is not None


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait."""

    def fail(_: float) -> None:
        raise AssertionError("it waits")

    monkeypatch.setattr("megacache._cache.uncovered.time.sleep", fail)


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let nobody wait for long."""
    monkeypatch.setattr(publish, "_PATIENCE", 0.2)


def test_the_same_is_stored_once(tmp_path: Path) -> None:
    """Of eight that have compiled the same, one uploads; the store holds no chunk that is in no bundle."""
    results = publish_together(tmp_path, ["ab"] * 8)
    assert Counter(one.status for one in results) == {PublishStatus.PUBLISHED: 1, PublishStatus.COVERED: 7}
    store = open_store(str(tmp_path))
    (manifest,) = held(store)
    assert len(names(store, ".zst")) == len(manifest)
    assert not names(store, "lease")


def held(store: Store) -> list[tuple[str, ...]]:
    """Give the digests of the chunks of each bundle."""
    catalog = Catalog(store, PLACE)
    manifests = [done.result() for done in catalog.read(catalog.list().visible)]
    return [tuple(chunk.digest.hex for chunk in one.chunks) for one in manifests]


def test_parts_are_stored_once(tmp_path: Path) -> None:
    """Each graph is in one bundle, whoever comes first: those who have it all wait, and publish what is left."""
    results = publish_together(tmp_path, ["a", "b", "ab", "abc", "b", "ca"])
    assert all(results)
    store = open_store(str(tmp_path))
    catalog = Catalog(store, PLACE)
    found = [done.result() for done in catalog.read(catalog.list().visible)]
    assert sorted(ref.key for one in found for ref in one.artifacts) == ["fa", "fb", "fc"]
    assert not names(store, "lease")


@pytest.mark.usefixtures("impatient")
def test_publisher_that_died_delays_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """What it left is waited for once, and is gone then."""
    store = open_store()
    leave(store, graph("a"))
    assert publish_one(store, graph("a"), graph("b")).status is PublishStatus.PUBLISHED
    assert not names(store, "lease")
    monkeypatch.setattr("megacache._cache.uncovered.time.sleep", pytest.fail)
    assert publish_one(store, graph("c")).status is PublishStatus.PUBLISHED


@pytest.mark.usefixtures("impatient")
def test_publisher_that_died_is_overtaken_beside_others() -> None:
    """What it left is gone then, also where somebody publishes something else meanwhile."""
    store = open_store()
    leave(store, graph("a"))
    assert Lease.claim(store, PLACE, 2, _content(["another"])) is not None
    assert publish_one(store, graph("a")).status is PublishStatus.PUBLISHED
    assert [name.rpartition("/")[2] for name in names(store, "lease")] == ["lease.2.0"]


@pytest.mark.usefixtures("hurried")
def test_nobody_waits_for_what_is_not_the_same() -> None:
    """Ranks that compile each for itself publish side by side, and none takes away what another left."""
    store = open_store()
    leave(store, graph("a"))
    assert publish_one(store, graph("b")).status is PublishStatus.PUBLISHED
    assert len(names(store, "lease.1.0")) == 1


@pytest.mark.usefixtures("hurried")
def test_nobody_waits_for_who_still_compiles() -> None:
    """A lease of single flight does not say what will be published."""
    store = open_store()
    assert Lease.take(store, PLACE, ()) is not None
    assert publish_one(store, graph("a")).status is PublishStatus.PUBLISHED


def test_those_who_came_together_see_each_other() -> None:
    """Who has listed before another took the turn finds it taken; who has nothing in common takes the next."""
    store = open_store()
    turns = [Turn(store, PLACE) for _ in range(3)]
    assert turns[0].take(["x", "y"], ()) == frozenset()
    assert turns[1].take(["y", "z"], ()) == {1}
    assert turns[2].take(["z"], ()) == frozenset()
    assert turns[1].take(["y", "z"], Catalog(store, PLACE).list().leases) == {1, 2}
    turns[0].end()
    assert turns[1].take(["y", "z"], [LeaseName(number=2, beat=0)]) == {2}


def test_publication_that_comes_to_nothing_ends_its_turn() -> None:
    """Others go on at once."""
    store = open_store()
    assert publish_one(store, graph("a"), most=1).status is PublishStatus.TOO_LARGE
    assert not store.list()


def failing(error: Exception, only: str) -> Callable[..., bool]:
    """Make a `create` that fails for some objects."""
    create = Store.create

    def fail(self: Store, key: str, data: bytes) -> bool:
        if only in key:
            raise error
        return create(self, key, data)

    return fail


def test_store_that_fails_for_a_moment_costs_no_publication(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a turn it is published as well."""
    monkeypatch.setattr(Store, "create", failing(UnavailableError("slow down"), "lease"))
    assert publish_one(open_store(), graph("a")).status is PublishStatus.PUBLISHED


def test_store_that_can_only_be_read_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is known before anything is uploaded."""
    monkeypatch.setattr(Store, "create", failing(AccessError("forbidden"), "lease"))
    store = open_store()
    result = publish_one(store, graph("a"))
    assert (result.status, result.reason, store.list()) == (PublishStatus.READ_ONLY, "forbidden", ())
