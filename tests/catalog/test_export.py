"""All artifacts of an environment come out as one blob that PyTorch reads alone."""

from megacache._bundle import Artifact, parse_blob
from megacache._catalog import Exported, Inventory, export_blob
from megacache._store import Store
from tests.kit.builders import artifact, bundle, environment, open_store, plain, prefix_of, upload


def exported(store: Store) -> Exported:
    """Export the one environment of a store."""
    (holding,) = Inventory.of(store).holdings
    return export_blob(store, [holding], lambda _: None)


def test_blob_is_the_union_of_bundles() -> None:
    """Artifacts of several bundles are in it, each once, and variants of one key side by side."""
    store = open_store()
    first, second = artifact("a", content=b"1"), artifact("a", content=b"2")
    upload(store, bundle([first, artifact("b")]), bundle([second, artifact("b"), artifact("c")]))
    done = exported(store)
    assert sorted(map(plain, parse_blob(done.blob))) == sorted(
        map(plain, [first, second, artifact("b"), artifact("c")])
    )
    assert (done.artifacts, len(done.bundles), done.failed, done.files) == ({"inductor": 4}, 2, (), 0)


def test_last_of_a_replaced_kind_stays() -> None:
    """Of a kind that PyTorch keeps in one file a key there is one, whichever bundle it is from."""
    store = open_store()
    profiles = [Artifact(kind="pgo", key="job", content=content) for content in (b"1", b"2")]
    upload(store, *(bundle([profile], labels={"n": str(n)}) for n, profile in enumerate(profiles)))
    upload(store, bundle([artifact("a"), profiles[1]]))
    assert exported(store).artifacts["pgo"] == 1


def test_damaged_bundle_is_told_and_left_out() -> None:
    """What cannot be used does not keep the rest from being exported."""
    store = open_store()
    bad, good = bundle([artifact("bad")]), bundle([artifact("good")])
    upload(store, bad, good)
    place = prefix_of(environment())
    store.delete(place.chunk(bad.chunks[0].ref.digest))
    store.create(place.manifest("a" * 32), b"garbage")
    done = exported(store)
    assert [one.key for one in parse_blob(done.blob)] == ["good"]
    assert {bundle for bundle, _ in done.failed} == {bad.manifest.bundle, "a" * 32}
