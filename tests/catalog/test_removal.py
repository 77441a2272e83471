"""What is removed is decided first: bundles go, and chunks that nobody else needs."""

import pytest

from megacache._catalog import Inventory, RemovalPlan, plan_removal
from megacache._store import Store
from tests.kit.builders import artifact, bundle, environment, open_store, prefix_of, upload

PLACE = prefix_of(environment())
SHARED, MINE = [artifact("shared")], [artifact("mine")]


@pytest.fixture
def store() -> Store:
    """Open an empty store."""
    return open_store()


def plan(store: Store, *bundles: str) -> RemovalPlan:
    """Plan the removal of some bundles of the one environment."""
    (holding,) = Inventory.of(store).holdings
    return plan_removal(store, holding, bundles)


def keys(store: Store) -> set[str]:
    """Name all objects of a store."""
    return {entry.key for entry in store.list()}


def test_chunk_that_others_need_stays(store: Store) -> None:
    """Of a removed bundle only the chunks go that no other bundle names."""
    one, two = bundle(SHARED, MINE), bundle(SHARED, [artifact("theirs")])
    upload(store, one, two)
    planned = plan(store, one.manifest.bundle)
    assert planned.chunks == (one.chunks[1].ref.digest,)
    assert (
        planned.size == len(one.chunks[1].stored) + dict(Inventory.of(store).holdings[0].manifests)[one.manifest.bundle]
    )
    assert len(keys(store)) == 5
    planned.apply(store, lambda _: None)
    assert keys(store) == {PLACE.manifest(two.manifest.bundle), *(PLACE.chunk(c.ref.digest) for c in two.chunks)}


def test_all_bundles_take_all_with_them(store: Store) -> None:
    """With the last bundle of an environment its marks and orphan chunks go, too."""
    one, two = bundle(MINE), bundle(SHARED)
    upload(store, one, two)
    store.create(PLACE.mark(one.manifest.bundle, "quarantined"), b"")
    store.create(PLACE.chunk(bundle([artifact("gone")]).chunks[0].ref.digest), b"an orphan")
    plan(store, two.manifest.bundle).apply(store, lambda _: None)
    steps: list[int] = []
    plan(store, one.manifest.bundle).apply(store, lambda step: steps.append(step.done))
    assert keys(store) == set()
    assert steps == [1, 2, 3, 4]


def test_manifest_goes_before_its_mark(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A withdrawn bundle does not become visible while it is being removed."""
    one, two = bundle(MINE), bundle(SHARED)
    upload(store, one, two)
    store.create(PLACE.mark(one.manifest.bundle, "quarantined"), b"")
    deleted: list[str] = []
    monkeypatch.setattr(store, "delete", deleted.append)
    plan(store, one.manifest.bundle).apply(store, lambda _: None)
    assert [key.rpartition(".")[2] for key in deleted] == ["msgpack", "quarantined", "zst"]


@pytest.mark.parametrize("readable", [True, False])
def test_chunk_of_a_bundle_that_is_announced_meanwhile_stays(
    store: Store, monkeypatch: pytest.MonkeyPatch, readable: bool
) -> None:
    """Before chunks go, whoever may name them by now is looked for; one that cannot be read may name any."""
    one, later = bundle(MINE), bundle(MINE, parents=["f" * 32])
    upload(store, one)
    delete = store.delete

    def announce(key: str) -> None:
        delete(key)
        if readable:
            upload(store, later)
        else:
            store.create(PLACE.manifest(later.manifest.bundle), b"garbage")

    planned = plan(store, one.manifest.bundle)
    assert planned.chunks
    monkeypatch.setattr(store, "delete", announce)
    assert planned.apply(store, lambda _: None).chunks == ()
    assert keys(store) == {PLACE.manifest(later.manifest.bundle), *map(PLACE.chunk, planned.chunks)}


def test_unreadable_manifest_keeps_chunks(store: Store) -> None:
    """While a manifest that stays cannot be read, no chunk goes, for it may need them."""
    one = bundle(MINE)
    upload(store, one)
    store.create(PLACE.manifest("a" * 32), b"garbage")
    planned = plan(store, one.manifest.bundle)
    assert (planned.bundles, planned.chunks, planned.kept) == ((one.manifest.bundle,), (), 1)


def test_what_is_gone_is_no_fault(store: Store) -> None:
    """Applying a plan twice does no harm."""
    one = bundle(MINE)
    upload(store, one)
    planned = plan(store, one.manifest.bundle)
    planned.apply(store, lambda _: None)
    planned.apply(store, lambda _: None)
    assert keys(store) == set()
