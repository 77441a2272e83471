"""Bundles are merged into one that holds all that they held, and supersedes them."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from megacache import _trust
from megacache._bundle import (
    CHUNK_SIZE,
    EXPLAIN_PART,
    FORMAT,
    PINNED,
    QUARANTINED,
    Component,
    GraphKey,
    Manifest,
    Payload,
    identify_artifact,
    merged,
    pack_chunk,
    pack_keys,
    parse_blob,
    parse_keys,
    seal,
)
from megacache._catalog import Catalog, Compacted, Compaction, CompactionPlan, Inventory, Order
from megacache._store import Store
from megacache._trust import Keys, Signing
from megacache.errors import SettingsError
from tests.kit.builders import (
    AUTOTUNE_KEY,
    Bundle,
    artifact,
    artifacts,
    bundle,
    compiled_file,
    environment,
    noise,
    open_store,
    plain,
    prefix_of,
    upload,
)

PLACE = prefix_of(environment())
ONE = bundle([artifact("a", b"one")], files=[compiled_file("ab/one.so", b"1")], labels={"team": "x", "n": "1"})
TWO = bundle([artifact("a", b"two"), artifact("b", b"b")], labels={"team": "x", "n": "2"})
THREE = bundle([artifact("c", b"c")], files=[compiled_file("ab/three.so", b"3")], labels={"team": "x"})


@pytest.fixture
def store() -> Store:
    """Open an empty store."""
    return open_store()


def compaction(store: Store, signing: Signing | None = None) -> Compaction:
    """Look at the one environment."""
    (holding,) = Inventory.of(store).holdings
    return Compaction(store, holding, signing or Signing())


def compact(store: Store, signing: Signing | None = None) -> tuple[CompactionPlan, Compacted]:
    """Plan, and apply."""
    job = compaction(store, signing)
    plan = job.plan()
    return plan, job.apply(plan, lambda _: None)


def visible(store: Store) -> list[Manifest]:
    """Read what readers see."""
    catalog = Catalog(store, PLACE)
    return [done.result() for done in catalog.read(catalog.list().visible)]


def content(store: Store) -> tuple[set[tuple[str, str, bytes]], set[tuple[str, bytes]]]:
    """Give all artifacts and files that readers are given."""
    orders = [Order(manifest=one, files=True) for one in visible(store)]
    contents = [found for delivery in Catalog(store, PLACE).deliver(orders) for found in delivery.contents]
    return (
        {plain(one) for found in contents if found.blob for one in parse_blob(found.blob)},
        {(file.path, file.content) for found in contents for file in found.files},
    )


def reasons(plan: CompactionPlan) -> dict[str, str]:
    """Say why bundles stay."""
    return dict(plan.staying)


def test_merged_bundle_holds_all(store: Store) -> None:
    """Each variant and each file is in one bundle, with what its sources agree on, and readers see no other bundle."""
    upload(store, ONE, TWO, THREE)
    before = content(store)
    plan, done = compact(store)
    (now,) = visible(store)
    assert done.merged == {now.bundle: tuple(one.bundle for one in plan.merges[0])}
    assert content(store) == before
    assert len(now.artifacts) == 4
    assert (len(now.chunks), len(now.parents), now.labels) == (2, 3, {"team": "x"})
    assert Catalog(store, PLACE).list().withdrawn == {one.manifest.bundle for one in (ONE, TWO, THREE)}


def test_nothing_is_left_to_do_afterwards(store: Store) -> None:
    """A second run finds one bundle, and leaves it alone."""
    upload(store, ONE, TWO)
    compact(store)
    keys = store.list()
    plan, done = compact(store)
    assert (plan.merges, done.merged, store.list()) == ((), {}, keys)


def test_two_compactors_at_once_write_one_bundle(store: Store) -> None:
    """Whoever comes second finds the merged bundle there, and all are content."""
    upload(store, ONE, TWO, THREE)
    jobs = [compaction(store), compaction(store)]
    plans = [job.plan() for job in jobs]
    first, second = (job.apply(plan, lambda _: None) for job, plan in zip(jobs, plans, strict=True))
    assert first.merged == second.merged
    assert not second.failed
    assert len(visible(store)) == 1


def test_compactor_that_saw_less_takes_nothing_away(store: Store) -> None:
    """A bundle that was published while others were merged stays, or is merged by whoever saw it."""
    upload(store, ONE, TWO)
    late = compaction(store)
    plan = late.plan()
    upload(store, THREE)
    before = content(store)
    compact(store)
    late.apply(plan, lambda _: None)
    assert content(store) == before
    compact(store)
    assert content(store) == before
    assert len(visible(store)) == 1


def test_last_of_what_is_replaced_stays(store: Store) -> None:
    """Of kinds that PyTorch keeps one file a key of, the merged bundle has what a warm start would have loaded last."""
    older = bundle([artifact(AUTOTUNE_KEY, b"older", kind="autotune")], files=[compiled_file("ab/x.so", b"older")])
    newer = bundle(
        [artifact(AUTOTUNE_KEY, b"newer", kind="autotune")],
        files=[compiled_file("ab/x.so", b"newer")],
        parents=[older.manifest.bundle],
    )
    upload(store, newer, older)
    compact(store)
    assert content(store) == ({("autotune", AUTOTUNE_KEY, b"newer")}, {("ab/x.so", b"newer")})


def test_files_of_other_facts_stay_apart(store: Store) -> None:
    """Bundles with compiled files are merged with those that the same facts guard; those without go with the most."""
    here, there = {"cpu_flags": "avx2"}, {"cpu_flags": "avx512f"}
    mine = [bundle([], files=[compiled_file(f"ab/{n}.so")], guard=here) for n in range(3)]
    theirs = [bundle([], files=[compiled_file(f"cd/{n}.so")], guard=there) for n in range(2)]
    lonely = bundle([], files=[compiled_file("ef/x.so")], guard={"cpu_flags": "amx"})
    upload(store, *mine, *theirs, lonely, TWO)
    plan, _ = compact(store)
    assert sorted(len(sources) for sources in plan.merges) == [2, 4]
    assert reasons(plan) == {lonely.manifest.bundle: "nothing of its kind to merge it with"}
    assert sorted((one.files.guard["cpu_flags"], len(one.artifacts)) for one in visible(store)) == [
        ("amx", 0),
        ("avx2", 2),
        ("avx512f", 0),
    ]


def test_large_chunks_are_not_written_again(store: Store) -> None:
    """A chunk of half the usual size is kept under its name; only small ones are joined."""
    large = bundle(artifacts(2, size=CHUNK_SIZE // 3))
    upload(store, large, ONE, TWO)
    compact(store)
    (now,) = visible(store)
    assert large.chunks[0].ref in now.chunks
    assert sorted(ref.part for ref in now.chunks) == ["artifacts", "artifacts", "files"]


def test_merged_bundles_do_not_grow_without_end(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What readers hold at once bounds a merged bundle, and a large one is not merged again."""
    monkeypatch.setattr("megacache._catalog.compaction.WINDOW", 10_000)
    monkeypatch.setattr("megacache._catalog.compaction._LARGE", 5_000)
    small = [bundle(artifacts(2, seed=n)) for n in range(6)]
    large = bundle(artifacts(6, seed=9))
    upload(store, *small, large)
    plan, _ = compact(store)
    assert [len(sources) for sources in plan.merges] == [4, 2]
    assert reasons(plan) == {large.manifest.bundle: "large enough already"}
    assert len(visible(store)) == 3


def test_damaged_bundle_stays_as_it_is(store: Store) -> None:
    """A bundle with a damaged chunk is left out, told of, and not superseded; the others are merged."""
    upload(store, ONE, TWO, THREE)
    damaged = PLACE.chunk(TWO.chunks[0].ref.digest)
    store.delete(damaged)
    store.create(damaged, noise(len(TWO.chunks[0].stored)))
    _, done = compact(store)
    assert [(bundle, type(fault).__name__) for bundle, fault in done.failed] == [
        (TWO.manifest.bundle, "IntegrityError")
    ]
    assert list(map(sorted, done.merged.values())) == [sorted([ONE.manifest.bundle, THREE.manifest.bundle])]
    assert {one.bundle for one in visible(store)} == {*done.merged, TWO.manifest.bundle}


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda store: Catalog(store, PLACE).mark(TWO.manifest.bundle, PINNED), "pinned"),
        (lambda store: store.delete(PLACE.chunk(TWO.chunks[0].ref.digest)), "it lacks 1 chunk"),
    ],
)
def test_what_cannot_be_merged_stays(store: Store, spoil: object, why: str) -> None:
    """A pinned bundle, and one that is not whole, stay visible."""
    upload(store, ONE, TWO, THREE)
    assert callable(spoil)
    spoil(store)
    plan, done = compact(store)
    assert reasons(plan) == {TWO.manifest.bundle: why}
    assert {one.bundle for one in visible(store)} == {*done.merged, TWO.manifest.bundle}


def test_unreadable_and_later_bundles_stay(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What this megacache cannot read, or might not keep all of, is left alone."""
    upload(store, ONE, THREE)
    store.create(PLACE.manifest("a" * 32), b"garbage")
    with monkeypatch.context() as patch:
        patch.setattr("megacache._bundle.manifest.FORMAT", (FORMAT[0], FORMAT[1] + 1))
        upload(store, TWO)
    plan, _ = compact(store)
    assert sorted(reasons(plan)) == sorted(["a" * 32, TWO.manifest.bundle])
    assert "later megacache" in reasons(plan)[TWO.manifest.bundle]


def test_quarantined_bundle_is_not_merged(store: Store) -> None:
    """What is out of service stays out of service."""
    upload(store, ONE, TWO, THREE)
    Catalog(store, PLACE).mark(TWO.manifest.bundle, QUARANTINED)
    plan, _ = compact(store)
    assert TWO.manifest.bundle not in {one.bundle for sources in plan.merges for one in sources}


def test_source_that_is_quarantined_meanwhile_takes_the_merged_bundle_with_it(store: Store) -> None:
    """If a source is withdrawn while it is merged, the merged bundle is, too, and the other sources stay in service."""
    upload(store, ONE, TWO, THREE)
    job = compaction(store)
    plan = job.plan()
    Catalog(store, PLACE).mark(TWO.manifest.bundle, QUARANTINED)
    done = job.apply(plan, lambda _: None)
    assert (done.merged, [bundle for bundle, _ in done.failed]) == ({}, [TWO.manifest.bundle])
    assert {one.bundle for one in visible(store)} == {ONE.manifest.bundle, THREE.manifest.bundle}
    _, again = compact(store)
    assert len(again.merged) == 1


def test_taken_name_supersedes_nothing(store: Store) -> None:
    """If something else lies under the name of the merged bundle, the sources stay in service."""
    upload(store, ONE, TWO)
    job = compaction(store)
    plan = job.plan()
    other = replace(TWO.manifest, bundle=merged(plan.merges[0]).bundle)
    Catalog(store, PLACE).announce(other)
    done = job.apply(plan, lambda _: None)
    assert (done.merged, [bundle for bundle, _ in done.failed]) == ({}, [other.bundle])
    assert len(visible(store)) == 3
    store.delete(PLACE.manifest(other.bundle))
    store.create(PLACE.manifest(other.bundle), b"garbage")
    done = job.apply(plan, lambda _: None)
    assert done.merged == {}


def test_name_of_a_withdrawn_bundle_is_avoided(store: Store) -> None:
    """Whoever died before the sources were marked, and whose bundle was then quarantined, is in nobody's way."""
    upload(store, ONE, TWO)
    first = merged(compaction(store).plan().merges[0]).bundle
    Catalog(store, PLACE).mark(first, QUARANTINED)
    _, done = compact(store)
    assert [first in one.parents for one in visible(store)] == [True]
    assert first not in done.merged


def test_explain_data_is_joined(store: Store) -> None:
    """What tells the keys of graphs is in one chunk, too; what is damaged of it is left out."""
    sources = [_with_explain_data(one, key) for one, key in ((ONE, "a"), (TWO, "b"), (THREE, ""))]
    upload(store, *sources)
    compact(store)
    (now,) = visible(store)
    (ref,) = [ref for ref in now.chunks if ref.part == EXPLAIN_PART]
    (done,) = Catalog(store, PLACE).fetch([("", ref)])
    assert [key.key for key in parse_keys(done.result())] == ["a", "b"]


def _with_explain_data(one: Bundle, key: str) -> Bundle:
    graph = GraphKey(kind="inductor", key=key, components={"gm": Component("0" * 16, key)})
    raw = pack_keys([graph]) if key else b"no explain data"
    chunk = pack_chunk(Payload(part=EXPLAIN_PART, weight=len(raw), build=lambda: raw))
    chunks = (*one.chunks, chunk)
    return Bundle(manifest=replace(one.manifest, chunks=tuple(each.ref for each in chunks)), chunks=chunks)


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Sequence[str]:
    """Make two private keys."""
    paths = [tmp_path_factory.mktemp("keys") / name for name in ("one.pem", "two.pem")]
    for path in paths:
        _trust.generate_key(path)
    return list(map(str, paths))


def signing(key: str | None, *trusted: str, threshold: int | None = None) -> Signing:
    """Sign with a key, trust others."""
    from megacache._settings import Settings

    public = tuple(Path(f"{one}.pub") for one in trusted) or None
    return Keys(trusted=public, threshold=threshold, sign_with=key).signing(Settings.read())


def sign_all(store: Store, key: str) -> None:
    """Publish two signed bundles."""
    signer = _trust.load_signer(key)
    for one in (ONE, TWO):
        upload(store, Bundle(manifest=THREE.manifest, chunks=one.chunks))
        Catalog(store, PLACE).announce(one.manifest, signer)
    store.delete(PLACE.manifest(THREE.manifest.bundle))


def test_merged_bundle_is_signed(store: Store, keys: Sequence[str]) -> None:
    """With trusted keys, only what they signed is merged, and readers who trust them read the merged bundle."""
    sign_all(store, keys[0])
    upload(store, THREE)
    how = signing(keys[0], keys[0])
    plan, done = compact(store, how)
    assert "0 valid signatures" in reasons(plan)[THREE.manifest.bundle]
    trusting = Catalog(store, PLACE, how.policy)
    (into,) = done.merged
    assert trusting.read_one(into, trusting.list().visible[into]).bundle == into


def test_what_another_key_has_signed_stays(store: Store, keys: Sequence[str]) -> None:
    """Readers who trust that key only would be left with a merged bundle that they refuse."""
    sign_all(store, keys[1])
    plan, done = compact(store, signing(keys[0], keys[0], keys[1]))
    assert not done.merged
    assert set(reasons(plan).values()) == {"signed by another key, and its readers may trust no other"}


def test_signed_store_is_not_merged_without_a_key(store: Store, keys: Sequence[str]) -> None:
    """Whoever cannot sign what readers would then be given is refused, and nothing is changed."""
    sign_all(store, keys[0])
    before = store.list()
    with pytest.raises(SettingsError, match="no key signs what it would be merged into"):
        compact(store)
    with pytest.raises(SettingsError, match="no key signs it"):
        compact(store, signing(None, keys[0]))
    with pytest.raises(SettingsError, match="not one of the trusted keys"):
        compact(store, signing(keys[1], keys[0]))
    with pytest.raises(SettingsError, match="2 keys must have signed"):
        compact(store, signing(keys[0], *keys, threshold=2))
    assert store.list() == before


def test_merging_the_same_gives_the_same() -> None:
    """The name and all that is told of a merged bundle depends on its sources alone."""
    sources = [ONE.manifest, TWO.manifest, THREE.manifest]
    assert seal(merged(sources)) == seal(merged(sources))
    assert merged(sources).bundle == merged([TWO.manifest, ONE.manifest, THREE.manifest]).bundle
    assert set(merged(sources).artifacts) == {
        identify_artifact(one)
        for one in (artifact("a", b"one"), artifact("a", b"two"), artifact("b", b"b"), artifact("c", b"c"))
    }
