"""What nobody reads any more is deleted after its grace, and environments that are not wanted are withdrawn before."""

import time
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import pytest

from megacache._bundle import PINNED, QUARANTINED, SUPERSEDED, Environment, EnvironmentPrefix, LeaseName
from megacache._catalog import Catalog, Inventory, RetentionPlan, Terms, plan_retention
from megacache._store import Entry, Store
from megacache.errors import MissingError, StoreError, UnavailableError
from tests.kit.builders import Bundle, artifact, bundle, environment, noise, open_store, prefix_of, upload
from tests.kit.places import Place

PLACE = prefix_of(environment())
HOUR, DAY = 3_600.0, 86_400.0
ONE, TWO, THREE = (bundle([artifact(key)], [artifact("shared")]) for key in "abc")


@pytest.fixture
def store() -> Store:
    """Open an empty store."""
    return open_store()


def plan(store: Store, *, later: float = 0, grace: float = DAY, **options: float) -> tuple[RetentionPlan, ...]:
    """Decide, some seconds from now."""
    terms = Terms(now=time.time() + later, grace=grace, **options)  # type: ignore[arg-type]
    return plan_retention(store, Inventory.of(store).holdings, terms)


def collect(store: Store, *, later: float = 0, grace: float = DAY, **options: float) -> set[str]:
    """Apply, and name what is gone."""
    before = keys(store)
    for one in plan(store, later=later, grace=grace, **options):
        one.apply(store, lambda _: None)
    return before - keys(store)


def keys(store: Store) -> set[str]:
    """Name all objects of a store."""
    return {entry.key for entry in store.list()}


def own(*bundles: Bundle) -> set[str]:
    """Name the objects that no other bundle needs."""
    return {
        *(PLACE.manifest(one.manifest.bundle) for one in bundles),
        *(PLACE.chunk(one.chunks[0].ref.digest) for one in bundles),
    }


def test_visible_bundles_stay(store: Store) -> None:
    """Without options nothing goes that readers see, however old it is."""
    upload(store, ONE, TWO)
    assert collect(store, later=1_000 * DAY) == set()
    assert collect(store, grace=0) == set()
    assert all(one.empty for one in plan(store))


@pytest.mark.parametrize("mark", [SUPERSEDED, QUARANTINED])
def test_withdrawn_bundle_goes_after_its_grace(store: Store, mark: str) -> None:
    """A bundle goes a day after it was withdrawn, with its mark and signatures, and the chunks that only it needs."""
    upload(store, ONE, TWO)
    Catalog(store, PLACE).mark(ONE.manifest.bundle, mark)
    store.create(PLACE.signature(ONE.manifest.bundle, "0" * 16), b"\n")
    (waiting,) = plan(store, later=DAY - HOUR)
    assert (waiting.waiting, waiting.empty) == (1, True)
    gone = collect(store, later=DAY + HOUR)
    marks = {PLACE.mark(ONE.manifest.bundle, mark), PLACE.signature(ONE.manifest.bundle, "0" * 16)}
    assert gone == own(ONE) | marks


def test_withdrawn_bundle_goes_from_each_store(place: Place) -> None:
    """S3, GCS and a disk tell how old objects are, and give room back."""
    store = place.open()
    upload(store, ONE, TWO)
    Catalog(store, PLACE).mark(ONE.manifest.bundle, SUPERSEDED)
    assert collect(store, later=DAY - HOUR) == set()
    assert collect(store, later=DAY + HOUR) == own(ONE) | {PLACE.mark(ONE.manifest.bundle, SUPERSEDED)}


def test_grace_begins_when_a_bundle_is_withdrawn(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The age of the mark counts, not that of the bundle, for readers may have listed it a moment before."""
    upload(store, ONE)
    Catalog(store, PLACE).mark(ONE.manifest.bundle, SUPERSEDED)
    aged = [_aged(one, 0 if one.key.endswith(SUPERSEDED) else 100 * DAY) for one in store.list()]
    monkeypatch.setattr(store, "list", lambda _="": tuple(aged))
    assert all(one.empty for one in plan(store))


def _aged(entry: Entry, seconds: float) -> Entry:
    assert entry.modified is not None
    return replace(entry, modified=entry.modified - seconds)


def test_pinned_bundle_never_goes(store: Store) -> None:
    """A pin keeps a bundle, whatever other marks it has and whatever is asked for."""
    upload(store, ONE, TWO)
    catalog = Catalog(store, PLACE)
    for mark in (PINNED, SUPERSEDED, QUARANTINED):
        catalog.mark(ONE.manifest.bundle, mark)
    assert collect(store, grace=0, older_than=0.0, max_size=0) == own(TWO)
    assert PLACE.mark(ONE.manifest.bundle, QUARANTINED) in keys(store)


def test_what_is_in_no_bundle_goes(store: Store) -> None:
    """Chunks, marks and signatures without a manifest, and stale leases, go when they are old."""
    upload(store, ONE, TWO)
    lost = {
        PLACE.chunk(THREE.chunks[0].ref.digest),
        PLACE.mark(THREE.manifest.bundle, SUPERSEDED),
        PLACE.mark(THREE.manifest.bundle, PINNED),
        PLACE.signature(THREE.manifest.bundle, "0" * 16),
        PLACE.lease(LeaseName(number=1, beat=0)),
    }
    for key in lost:
        store.create(key, b"\n")
    store.create("notes.txt", b"written by nobody here")
    assert collect(store, later=DAY - HOUR) == set()
    assert collect(store, later=DAY + HOUR) == lost


def test_unreadable_manifest_keeps_chunks(store: Store) -> None:
    """While a manifest that stays cannot be read, no chunk goes, for it may need them."""
    upload(store, ONE)
    orphan = PLACE.chunk(THREE.chunks[0].ref.digest)
    store.create(orphan, b"\n")
    store.create(PLACE.manifest("a" * 32), b"garbage")
    (one,) = plan(store, grace=0)
    assert (one.removal.chunks, one.removal.kept) == ((), 1)
    Catalog(store, PLACE).mark("a" * 32, QUARANTINED)
    assert collect(store, grace=0) == {orphan, PLACE.manifest("a" * 32), PLACE.mark("a" * 32, QUARANTINED)}


def test_unknown_age_keeps_everything(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a store does not tell how old objects are, nothing is deleted, unless there is no grace."""
    upload(store, ONE)
    Catalog(store, PLACE).mark(ONE.manifest.bundle, SUPERSEDED)
    listed = [replace(one, modified=None) for one in store.list()]
    with monkeypatch.context() as patch:
        patch.setattr(store, "list", lambda _="": tuple(listed))
        (one,) = plan(store, later=100 * DAY)
        assert (one.empty, one.untold) == (True, True)
    collect(store, grace=0)
    assert keys(store) == set()


OLD, NEWER, NEWEST = (environment(torch_version=version) for version in ("2.8", "2.13", "2.15"))
GPU = environment(device_type="cuda", device_name="NVIDIA H100 80GB HBM3")


def publish(store: Store, here: Environment, days: float, *, size: int = 10) -> Bundle:
    """Publish a bundle so many days ago."""
    made = bundle([artifact("a", noise(size))], here=here)
    created = datetime.fromtimestamp(time.time() - days * DAY, UTC).isoformat(timespec="seconds")
    made = replace(made, manifest=replace(made.manifest, created=created))
    upload(store, made)
    return made


def withdrawn(plans: Sequence[RetentionPlan]) -> set[EnvironmentPrefix]:
    """Name the environments that are not kept."""
    return {one.prefix for one in plans if one.withdrawn}


def test_environment_goes_some_time_after_its_last_publication(store: Store) -> None:
    """The newest bundle counts, however old the others are."""
    publish(store, OLD, 100)
    publish(store, NEWER, 100)
    upload(store, bundle([artifact("b")], here=NEWER))
    assert withdrawn(plan(store, older_than=90 * DAY)) == {prefix_of(OLD)}


def test_last_environments_of_each_device_are_kept(store: Store) -> None:
    """Of each GPU type so many environments stay, those that were published to last."""
    publish(store, OLD, 3)
    publish(store, NEWER, 2)
    publish(store, NEWEST, 1)
    publish(store, GPU, 400)
    assert withdrawn(plan(store, keep=2)) == {prefix_of(OLD)}
    assert withdrawn(plan(store, keep=1)) == {prefix_of(OLD), prefix_of(NEWER)}


def test_environments_of_all_cpus_of_a_gpu_count_as_one(store: Store) -> None:
    """What serves beside any CPU and what is for single ones are kept together; older software goes."""
    cpus = [environment(device_type="cuda", cpu_capability=name) for name in ("AVX2", "AVX512")]
    shared = cpus[0].for_any_cpu
    assert shared
    older = environment(device_type="cuda", triton="older")
    publish(store, older, 4)
    for days, here in enumerate([shared, *cpus]):
        publish(store, here, days + 1)
    assert withdrawn(plan(store, keep=1)) == {prefix_of(older)}
    assert withdrawn(plan(store, keep=2)) == set()
    assert withdrawn(plan(store, keep=1, older_than=2.5 * DAY)) == {prefix_of(older), prefix_of(cpus[1])}


def test_oldest_environments_go_until_the_others_fit(store: Store) -> None:
    """The newest stays, and what fits beside it; what is superseded goes anyway, and does not count."""
    publish(store, OLD, 3, size=10)
    publish(store, NEWER, 2, size=50_000)
    publish(store, NEWEST, 1, size=10_000)
    dead = bundle([artifact("c", noise(500_000))], here=NEWEST)
    upload(store, dead)
    Catalog.of(store, NEWEST).mark(dead.manifest.bundle, SUPERSEDED)
    assert withdrawn(plan(store, max_size=100_000)) == set()
    assert withdrawn(plan(store, max_size=40_000)) == {prefix_of(NEWER)}
    assert withdrawn(plan(store, max_size=1)) == {prefix_of(OLD), prefix_of(NEWER)}


def test_environment_is_hidden_first_and_deleted_later(store: Store) -> None:
    """Readers of an unwanted environment have a day to end; without a grace it goes at once."""
    old = publish(store, OLD, 100)
    publish(store, NEWEST, 1)
    assert collect(store, older_than=90 * DAY) == set()
    catalog = Catalog.of(store, OLD)
    listing = catalog.list()
    assert (dict(listing.visible), set(listing.withdrawn)) == ({}, {old.manifest.bundle})
    assert collect(store, later=2 * DAY) == {
        key
        for one in old.chunks
        for key in (
            catalog.prefix.chunk(one.ref.digest),
            catalog.prefix.manifest(old.manifest.bundle),
            catalog.prefix.mark(old.manifest.bundle, SUPERSEDED),
        )
    }
    assert len(collect(store, grace=0, older_than=0.0)) == 2
    assert keys(store) == set()


def test_unreadable_manifest_is_as_old_as_its_object(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be dated by its content is dated by the store; what cannot be dated at all is not withdrawn."""
    publish(store, OLD, 100)
    prefix = prefix_of(OLD)
    store.create(prefix.manifest("a" * 32), b"garbage")
    assert withdrawn(plan(store, older_than=90 * DAY)) == set()
    assert withdrawn(plan(store, later=91 * DAY, older_than=90 * DAY)) == {prefix}
    listed = [replace(one, modified=None) for one in store.list()]
    monkeypatch.setattr(store, "list", lambda _="": tuple(listed))
    assert withdrawn(plan(store, later=91 * DAY, older_than=90 * DAY)) == set()


def test_store_that_would_not_give_a_manifest_withdraws_nothing(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that throttles does not make its environments look old; what is gone since the listing does not count."""
    publish(store, OLD, 100)
    upload(store, newest := bundle([artifact("b")], here=OLD))
    key = prefix_of(OLD).manifest(newest.manifest.bundle)
    read = store.read
    fault: StoreError = UnavailableError("503: slow down")

    def refusing(name: str, *, size: int) -> bytes:
        if name == key:
            raise fault
        return read(name, size=size)

    monkeypatch.setattr(store, "read", refusing)
    for choice in ({"older_than": 90 * DAY}, {"keep": 1}, {"max_size": 10**9}):
        with pytest.raises(UnavailableError, match="slow down"):
            plan(store, **choice)
    fault = MissingError("gone")
    assert withdrawn(plan(store, older_than=90 * DAY)) == {prefix_of(OLD)}


def test_what_has_changed_since_is_left_alone(store: Store) -> None:
    """Of what was shown, only that goes which would still go: a bundle that was pinned meanwhile stays."""
    upload(store, ONE, TWO)
    catalog = Catalog(store, PLACE)
    for one in (ONE, TWO):
        catalog.mark(one.manifest.bundle, SUPERSEDED)
    (shown,) = plan(store, grace=0)
    catalog.mark(ONE.manifest.bundle, PINNED)
    (now,) = plan(store, grace=0)
    shown.still(now).apply(store, lambda _: None)
    assert keys(store) >= own(ONE)
    assert not keys(store) & own(TWO)


def test_what_has_changed_before_its_turn_is_left_alone(store: Store) -> None:
    """Each environment is looked at once more: what is pinned stays, and all of one that was published to."""
    upload(store, ONE, TWO)
    publish(store, OLD, 100)
    old = next(iter(Catalog.of(store, OLD).list().visible))
    Catalog(store, PLACE).mark(TWO.manifest.bundle, SUPERSEDED)
    terms = Terms(now=time.time(), grace=0, older_than=90 * DAY)
    plans = {one.prefix: one for one in plan_retention(store, Inventory.of(store).holdings, terms)}
    assert plans[PLACE].removal.bundles == (TWO.manifest.bundle,)
    assert plans[prefix_of(OLD)].removal.bundles == (old,)
    Catalog(store, PLACE).mark(TWO.manifest.bundle, PINNED)
    upload(store, bundle([artifact("b")], here=OLD))
    for one in plans.values():
        assert one.checked(store, terms).apply(store, lambda _: None).empty
    assert keys(store) >= own(ONE) | own(TWO)


def test_environment_that_has_not_changed_goes_in_its_turn(store: Store) -> None:
    """Another look changes nothing else."""
    publish(store, OLD, 100)
    terms = Terms(now=time.time(), grace=0, older_than=90 * DAY)
    (found,) = plan_retention(store, Inventory.of(store).holdings, terms)
    assert found.checked(store, terms) == found
    found.checked(store, terms).apply(store, lambda _: None)
    assert keys(store) == set()
