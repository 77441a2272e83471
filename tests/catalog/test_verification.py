"""Every fault of what is published is found and told of the bundle that it belongs to."""

from dataclasses import replace

import pytest

from megacache._bundle import EXPLAIN_PART, Payload, pack_chunk, seal
from megacache._catalog import Inventory, Verified, verify
from megacache._runtime import Progress
from megacache._store import Store
from tests.kit.builders import Bundle, artifact, artifacts, bundle, environment, open_store, prefix_of, upload

PLACE = prefix_of(environment())


@pytest.fixture
def store() -> Store:
    """Open an empty store."""
    return open_store()


def verified(store: Store) -> Verified:
    """Verify the one environment of a store."""
    (holding,) = Inventory.of(store).holdings
    return verify(store, holding, lambda _: None)


def faults(store: Store, one: Bundle) -> str:
    """Give what is told of one bundle."""
    (found,) = [verdict for verdict in verified(store).verdicts if verdict.bundle == one.manifest.bundle]
    return "; ".join(map(str, found.faults))


def test_sound_bundles_have_no_fault(store: Store) -> None:
    """Each bundle has a verdict, the withdrawn one too, and the size of its chunks."""
    one, two = bundle(artifacts(3)), bundle([artifact("more")])
    upload(store, one, two)
    store.create(PLACE.mark(two.manifest.bundle, "quarantined"), b"")
    found = verified(store)
    assert {verdict.bundle: verdict.faults for verdict in found.verdicts} == {
        one.manifest.bundle: (),
        two.manifest.bundle: (),
    }
    assert sum(verdict.bytes_stored for verdict in found.verdicts) == sum(
        Inventory.of(store).holdings[0].chunks.values()
    )
    assert found.orphans == ()


def test_progress_comes_to_its_end(store: Store) -> None:
    """The bytes told last are all bytes."""
    upload(store, bundle(artifacts(3)), bundle([artifact("more")]))
    (holding,) = Inventory.of(store).holdings
    steps: list[Progress] = []
    verify(store, holding, steps.append)
    assert steps[-1].done == steps[-1].total == sum(holding.chunks.values())


@pytest.mark.parametrize(
    ("stored", "told"),
    [(b"", "size of chunk"), (None, "not there"), (b"x" * 8, "is damaged"), (b"x" * 9_999, "size of chunk")],
    ids=["empty", "gone", "other bytes", "longer"],
)
def test_bad_chunk_is_told(store: Store, stored: bytes | None, told: str) -> None:
    """A chunk that is gone, cut, longer or of other bytes is a fault of its bundle, and of no other."""
    one, two = bundle([artifact("one")]), bundle([artifact("two")])
    key = PLACE.chunk(one.chunks[0].ref.digest)
    upload(store, one, two)
    store.delete(key)
    if stored is not None:
        store.create(key, (stored * 99)[: len(one.chunks[0].stored)] if len(stored) == 8 else stored)
    if told == "not there":
        assert "FileNotFoundError" in faults(store, one)
    else:
        assert told in faults(store, one)
    assert faults(store, two) == ""


def test_bad_manifest_is_told(store: Store) -> None:
    """A manifest that is none is a fault, and no chunk is called an orphan then."""
    one = bundle([artifact()])
    upload(store, one)
    store.create(PLACE.manifest("a" * 32), b"garbage")
    found = verified(store)
    assert {verdict.bundle: bool(verdict.faults) for verdict in found.verdicts} == {
        one.manifest.bundle: False,
        "a" * 32: True,
    }
    assert found.orphans == ()


def test_wrong_place_is_told(store: Store) -> None:
    """A manifest that was moved to another environment's folder is a fault."""
    one = bundle([artifact()], here=environment(triton="other"))
    upload(store, one)
    for entry in store.list():
        store.create(f"{PLACE.path}/{entry.key.split('/', 2)[2]}", store.read(entry.key, size=entry.size))
        store.delete(entry.key)
    assert "its environment belongs under" in faults(store, one)


def test_parts_that_no_warm_start_reads_are_read(store: Store) -> None:
    """A damaged chunk of explain data is found as well."""
    chunk = pack_chunk(Payload(part=EXPLAIN_PART, weight=1, build=lambda: b"explain data"))
    one = bundle([artifact()])
    upload(store, one)
    wider = replace(one.manifest, bundle="c" * 32, chunks=(*one.manifest.chunks, chunk.ref))
    store.create(PLACE.manifest(wider.bundle), seal(wider))
    store.create(PLACE.chunk(chunk.ref.digest), b"x" * len(chunk.stored))
    assert "is damaged" in faults(store, Bundle(manifest=wider, chunks=()))
    assert faults(store, one) == ""


def test_orphans_are_told(store: Store) -> None:
    """A chunk that no manifest names is no fault, and is told."""
    one, lost = bundle([artifact()]), bundle([artifact("lost")])
    upload(store, one)
    store.create(PLACE.chunk(lost.chunks[0].ref.digest), lost.chunks[0].stored)
    assert verified(store).orphans == (lost.chunks[0].ref.digest,)
