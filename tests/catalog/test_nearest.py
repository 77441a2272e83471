"""Of several places each object is read from the nearest that holds it, and nothing there makes anything worse."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from megacache import _trust
from megacache._bundle import COPIED, QUARANTINED, SUPERSEDED, Manifest
from megacache._catalog import (
    Catalog,
    Compaction,
    Delivery,
    Inventory,
    NearestCatalog,
    Order,
    Places,
    Terms,
    add_signature,
    catalog_of,
    fill,
    plan_retention,
)
from megacache._runtime import Deadline
from megacache._store import Store
from megacache._trust import Signing, TrustPolicy
from megacache.errors import MegacacheError, UnavailableError
from tests.kit import faulty_disk
from tests.kit.builders import Bundle, artifacts, bundle, environment, finish_workers, open_store, prefix_of, upload
from tests.kit.damage import flip_bit, truncate
from tests.kit.disks import read_only, small_disk

HERE = environment()
PLACE = prefix_of(HERE)
ONE, TWO = (bundle(artifacts(2, seed=seed), artifacts(1, seed=seed + 100)) for seed in (1, 2))
LONG = 60.0


class Node:
    """A node with a near folder, and the cache behind it."""

    def __init__(self, folder: Path) -> None:
        self.near, self.last = folder / "near", folder / "last"
        self.urls = [str(self.near), str(self.last)]

    def store(self, folder: Path) -> Store:
        """Open one of the two alone."""
        return open_store(str(folder))

    def catalog(self, policy: TrustPolicy | None = None, seconds: float = LONG) -> Catalog:
        """Look at both, as a process does that starts."""
        places = Places.open(self.urls, storage_options=None, deadline=Deadline.after(seconds))
        return catalog_of(places, HERE, policy)

    def read(self, catalog: Catalog | None = None) -> dict[str, Delivery]:
        """Read all that is visible."""
        catalog = catalog or self.catalog()
        listing = catalog.list()
        catalog = catalog.knowing(listing)
        manifests = [done.result() for done in catalog.read(listing.visible)]
        found = list(catalog.deliver([Order(manifest=one, files=True) for one in manifests]))
        return {delivery.manifest.bundle: delivery for delivery in found}

    def sources(self) -> dict[str, set[str]]:
        """Say what gave each bundle; all are whole."""
        found = self.read()
        assert not any(delivery.fault for delivery in found.values())
        return {name: {Path(source).name for source in delivery.sources} for name, delivery in found.items()}

    def fill(self, policy: TrustPolicy | None = None) -> None:
        """Read all, and copy it, as a warm start does."""
        catalog = self.catalog(policy)
        listing = catalog.list()
        catalog = catalog.knowing(listing)
        manifests: list[Manifest] = [done.result() for done in catalog.read(listing.visible)]
        list(catalog.deliver([Order(manifest=one, files=True) for one in manifests]))
        assert isinstance(catalog, NearestCatalog)
        fill(catalog, manifests)
        finish_workers()


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """Make a node on which nothing lies, and a cache with two bundles."""
    found = Node(tmp_path)
    upload(found.store(found.last), ONE, TWO)
    return found


def named(*bundles: Bundle) -> set[str]:
    """Give ids."""
    return {one.manifest.bundle for one in bundles}


def contents(folder: Path) -> dict[str, bytes]:
    """Give all objects of a store but the marks of copies."""
    paths = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in paths if path.suffix != f".{COPIED}"}


def test_filled_place_serves_alone(node: Node) -> None:
    """The first reader takes all from the last place; the next from the copies, which are the same, byte for byte."""
    assert node.sources() == {one: {"last"} for one in named(ONE, TWO)}
    node.fill()
    assert contents(node.near) == contents(node.last)
    assert node.sources() == {one: {"near"} for one in named(ONE, TWO)}


def test_what_is_newer_behind_is_seen(node: Node) -> None:
    """A place that holds an older set hides nothing."""
    shutil.rmtree(node.last)
    upload(node.store(node.last), ONE)
    node.fill()
    upload(node.store(node.last), TWO)
    assert node.sources() == {ONE.manifest.bundle: {"near"}, TWO.manifest.bundle: {"last"}}


def test_copy_counts_no_longer_than_what_it_was_copied_from(node: Node) -> None:
    """What was deleted behind, as a bad bundle is in the end, does not come back from a copy."""
    node.fill()
    node.store(node.last).delete(PLACE.manifest(ONE.manifest.bundle))
    assert node.sources() == {TWO.manifest.bundle: {"near"}}
    assert ONE.manifest.bundle in node.catalog().list().withdrawn


def test_copy_that_was_left_behind_is_left_to_gc(node: Node) -> None:
    """A later start marks it, so that its room comes back, and takes the mark away if the bundle does."""
    node.fill()
    last, manifest = Catalog(node.store(node.last), PLACE), PLACE.manifest(ONE.manifest.bundle)
    node.store(node.last).delete(manifest)
    node.fill()
    near = Catalog(node.store(node.near), PLACE)
    assert near.list().visible.keys() == named(TWO)
    terms = Terms(grace=0, now=0)
    (plan,) = plan_retention(node.store(node.near), Inventory.of(node.store(node.near)).holdings, terms)
    assert plan.removal.bundles == (ONE.manifest.bundle,)
    last.announce(ONE.manifest)
    assert node.sources()[ONE.manifest.bundle] == {"last"}
    node.fill()
    assert node.sources() == {one: {"near"} for one in named(ONE, TWO)}


def test_copies_are_not_merged(node: Node) -> None:
    """A merged bundle would outlive what it was copied from."""
    node.fill()
    store = node.store(node.near)
    plan = Compaction(store, Inventory.of(store).holdings[0], Signing()).plan()
    assert (plan.merges, {bundle for bundle, _ in plan.staying}) == ((), named(ONE, TWO))


@pytest.mark.parametrize("mark", [QUARANTINED, SUPERSEDED])
def test_what_is_withdrawn_behind_is_withdrawn_here(node: Node, mark: str) -> None:
    """A mark at the last place hides the copies."""
    node.fill()
    Catalog(node.store(node.last), PLACE).mark(ONE.manifest.bundle, mark)
    assert node.sources() == {TWO.manifest.bundle: {"near"}}


def test_what_was_put_into_a_near_place_counts_by_itself(node: Node) -> None:
    """A bundle that somebody has published or pulled there is no copy of a warm start, and is not copied on."""
    shutil.rmtree(node.last)
    upload(node.store(node.near), ONE)
    upload(node.store(node.last), TWO)
    assert node.sources() == {ONE.manifest.bundle: {"near"}, TWO.manifest.bundle: {"last"}}
    node.fill()
    assert node.catalog().list().visible.keys() == named(ONE, TWO)
    assert Catalog(node.store(node.last), PLACE).list().visible.keys() == named(TWO)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": flip_bit,
    "truncated": truncate,
    "empty": lambda path: path.write_bytes(b""),
    "missing": Path.unlink,
}


@pytest.mark.parametrize("what", ["chunks", "bundles"])
@pytest.mark.parametrize("damage", DAMAGES)
def test_damage_is_passed_by_and_healed(node: Node, damage: str, what: str) -> None:
    """What is wrong in a near place comes from the next one, once."""
    node.fill()
    path = next(path for path in sorted(node.near.rglob(f"{what}/*")) if path.suffix in {".zst", ".msgpack"})
    DAMAGES[damage](path)
    found = node.read()
    assert found.keys() == named(ONE, TWO)
    assert not any(delivery.fault for delivery in found.values())
    node.fill()
    assert contents(node.near) == contents(node.last)
    assert node.sources() == {one: {"near"} for one in named(ONE, TWO)}


def test_silent_last_place_leaves_what_is_near(node: Node) -> None:
    """Copies count while nobody can say whether they still should; a reader is told."""
    node.fill()
    shutil.rmtree(node.last)
    node.last.write_text("no folder")
    catalog = node.catalog()
    assert node.read(catalog).keys() == named(ONE, TWO)
    assert isinstance(catalog, NearestCatalog)
    (warning,) = catalog.places.warnings
    assert warning.startswith(f"{node.last} could not be read in full, and may hold more: ")


def test_silent_last_place_with_nothing_near_is_the_fault(node: Node) -> None:
    """Nothing near is no miss as long as the cache itself does not answer."""
    shutil.rmtree(node.last)
    node.last.write_text("no folder")
    with pytest.raises(MegacacheError, match=str(node.last)):
        node.catalog().list()


def test_near_place_that_cannot_be_opened_is_left_out(node: Node) -> None:
    """Whatever its URL is."""
    node.urls[0] = "nonsense://node"
    catalog = node.catalog()
    assert node.read(catalog).keys() == named(ONE, TWO)
    assert isinstance(catalog, NearestCatalog)
    (warning,) = catalog.places.warnings
    assert warning.startswith("nonsense://node was left out: ")


def test_last_place_that_cannot_be_opened_is_the_fault(node: Node) -> None:
    """A mistake in the URL of the cache is told, and not passed by."""
    node.urls[1] = "nonsense://cache"
    with pytest.raises(MegacacheError, match="nonsense"):
        node.catalog()


def test_place_without_others_has_all_the_time(node: Node) -> None:
    """Nothing would be left to do with what remains, as in `megacache explain` of one URL."""
    for urls, seconds in ((node.urls[1:], LONG), (node.urls, LONG / 2)):
        places = Places.open(urls, storage_options=None, deadline=Deadline.after(LONG))
        assert places[-1].for_listing().deadline.seconds == pytest.approx(seconds, rel=0.1)


@pytest.mark.parametrize("step", ["^LIST", r"\.msgpack", r"\.zst"])
def test_place_that_hangs_costs_a_part_of_the_time(node: Node, step: str) -> None:
    """The next is asked in time, for all that is left."""
    node.fill()
    faulty_disk.register()
    node.urls[0] = f"faulty://{node.near}"
    faulty_disk.RULES.fail(step, faulty_disk.hang)
    try:
        catalog = node.catalog(seconds=8)
        found = node.read(catalog)
    finally:
        faulty_disk.RULES.heal()
    finish_workers()
    assert found.keys() == named(ONE, TWO)
    assert not any(delivery.fault for delivery in found.values())
    assert isinstance(catalog, NearestCatalog)
    (warning,) = catalog.places.warnings
    assert warning.startswith(f"faulty://{node.near} was left out: not done within ")


def test_read_only_place_is_left_as_it_is(node: Node) -> None:
    """It cannot be filled, and that is nobody's fault."""
    node.near.mkdir()
    with read_only(node.near):
        node.fill()
        assert node.sources() == {one: {"last"} for one in named(ONE, TWO)}
    assert not contents(node.near)


def test_full_place_holds_no_half_bundle(tmp_path: Path) -> None:
    """What did not fit is not seen; once there is room, it is copied."""
    with small_disk(tmp_path / "disk", 128 << 10) as disk:
        node = Node(tmp_path)
        node.near, node.urls = disk / "near", [str(disk / "near"), str(node.last)]
        large = bundle(artifacts(1, size=20_000), artifacts(1, size=30_000, seed=3), artifacts(1, size=10_000, seed=4))
        upload(node.store(node.last), large)
        filler = disk / "filler"
        filler.write_bytes(bytes(80_000))
        node.fill()
        assert node.sources() == {large.manifest.bundle: {"last"}}
        filler.unlink()
        node.fill()
        assert node.sources() == {large.manifest.bundle: {"near"}}


class TestSignatures:
    """With trusted keys, copies count if they are signed for the last place."""

    @pytest.fixture
    def key(self, tmp_path: Path) -> Path:
        """Make a private key."""
        _trust.generate_key(tmp_path / "key.pem")
        return tmp_path / "key.pem"

    @pytest.fixture
    def policy(self, key: Path) -> TrustPolicy:
        """Trust the key."""
        return TrustPolicy.read([f"{key}.pub"])

    @pytest.fixture
    def signed(self, tmp_path: Path, key: Path) -> Node:
        """Make a node, and a cache with a signed bundle."""
        node = Node(tmp_path)
        upload(node.store(node.last), ONE)
        store = node.store(node.last)
        store.delete(PLACE.manifest(ONE.manifest.bundle))
        Catalog(store, PLACE).announce(ONE.manifest, _trust.load_signer(str(key)))
        return node

    def test_copy_is_trusted_as_the_last_place_is(self, signed: Node, policy: TrustPolicy) -> None:
        """It has the signature of the place that it was copied from."""
        signed.fill(policy)
        found = signed.read(signed.catalog(policy))
        assert {Path(source).name for source in found[ONE.manifest.bundle].sources} == {"near"}

    def test_unsigned_copy_is_passed_by_and_healed(self, signed: Node, policy: TrustPolicy) -> None:
        """Whoever may write to the near place cannot put anything in."""
        upload(signed.store(signed.near), ONE, TWO)
        listing = signed.catalog(policy).list()
        catalog = signed.catalog(policy).knowing(listing)
        faults = {done.item: done.fault for done in catalog.read(listing.visible)}
        assert faults[ONE.manifest.bundle] is None
        assert "0 valid signatures" in str(faults[TWO.manifest.bundle])
        shutil.rmtree(signed.near)
        upload(signed.store(signed.near), ONE)
        signed.fill(policy)
        assert contents(signed.near) == contents(signed.last)

    def test_signature_that_was_added_later_is_copied(self, signed: Node, policy: TrustPolicy, key: Path) -> None:
        """The copy is as good as what it was copied from."""
        store = signed.store(signed.last)
        store.delete(PLACE.manifest(ONE.manifest.bundle))
        Catalog(store, PLACE).announce(ONE.manifest)
        add_signature(store, Inventory.of(store).holdings[0], ONE.manifest.bundle, _trust.load_signer(str(key)))
        signed.fill(policy)
        assert contents(signed.near) == contents(signed.last)
        found = signed.read(signed.catalog(policy))
        assert {Path(source).name for source in found[ONE.manifest.bundle].sources} == {"near"}


def test_copy_is_written_as_a_publication_is(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut short at any step, it leaves a whole copy or none that is seen; the next one goes on."""
    shutil.rmtree(node.last)
    upload(node.store(node.last), ONE)
    create = Store.create

    class CutError(MegacacheError):
        """The process ends here."""

    for step in range(6):
        left = step

        def cut(store: Store, key: str, data: bytes) -> bool:
            nonlocal left
            if not left:
                raise CutError("cut")
            left -= 1
            return create(store, key, data)

        with monkeypatch.context() as patch:
            patch.setattr(Store, "create", cut)
            node.fill()
        near = Catalog(node.store(node.near), PLACE).list()
        assert near.visible.keys() <= near.copied
        assert node.sources() == {ONE.manifest.bundle: {"near" if near.visible else "last"}}
    assert near.visible.keys() == named(ONE)


def test_third_place_fills_both(tmp_path: Path) -> None:
    """All nearer places are filled, and what the nearest lacks comes from the next one."""
    node = Node(tmp_path)
    middle = tmp_path / "middle"
    node.urls.insert(1, str(middle))
    upload(node.store(node.last), ONE)
    node.fill()
    assert contents(node.near) == contents(middle) == contents(node.last)
    shutil.rmtree(node.near)
    assert node.sources() == {ONE.manifest.bundle: {"middle"}}


def test_listing_of_a_place_that_failed_is_not_repeated(node: Node) -> None:
    """A second round asks only those that answered."""
    node.near.write_text("no folder")
    catalog = node.catalog()
    for _ in range(2):
        assert catalog.list().visible.keys() == named(ONE, TWO)
    assert isinstance(catalog, NearestCatalog)
    assert isinstance(catalog.places[0].fault, UnavailableError)
