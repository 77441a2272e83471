"""A listing of a whole cache is sorted by environment, and near environments are found."""

from pathlib import Path

import pytest

from megacache._bundle import Digest, EnvironmentPrefix
from megacache._catalog import Inventory, nearest_other
from megacache._store import Entry, Store
from tests.kit.builders import artifact, bundle, environment, open_store, prefix_of, upload

HERE = environment()
A, B = "a" * 32, "b" * 32
H100, CPU = EnvironmentPrefix("h100/" + "1" * 16), EnvironmentPrefix("cpu-x86-64/" + "2" * 16)
CHUNK = Digest.of(b"")


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Open an empty store."""
    return open_store(tmp_path.as_uri() if request.param == "file" else None)


def test_objects_are_sorted_by_environment() -> None:
    """Each environment is found once, with its manifests, marks and chunks; other keys are told apart."""
    keys = [H100.manifest(A), H100.manifest(B), H100.mark(A, "quarantined"), CPU.chunk(CHUNK), CPU.mark(B, "pinned")]
    inventory = Inventory.sorted(Entry(key=key, size=7) for key in [*keys, "notes.txt"])
    assert inventory.strangers == ("notes.txt",)
    cpu, h100 = inventory.holdings
    assert (cpu.prefix, cpu.manifests, cpu.chunks, cpu.size) == (CPU, {}, {CHUNK: 7}, 7)
    assert cpu.marks == {B: {"pinned"}}
    assert (h100.prefix, h100.manifests, h100.size) == (H100, {A: 7, B: 7}, 14)
    assert h100.visible == {B: 7}


def test_what_is_stored_is_listed(store: Store) -> None:
    """The inventory of a store names the bundles and chunks that were put there, with their sizes."""
    one = bundle([artifact()])
    upload(store, one)
    (holding,) = Inventory.of(store).holdings
    assert holding.prefix == prefix_of(one.manifest.environment)
    assert holding.manifests.keys() == {one.manifest.bundle}
    assert holding.chunks == {chunk.ref.digest: len(chunk.stored) for chunk in one.chunks}


def test_empty_store_holds_nothing(store: Store) -> None:
    """A store without any object has an empty inventory."""
    assert Inventory.of(store) == Inventory(holdings=(), strangers=())


def test_nearest_has_the_fewest_mismatches(store: Store) -> None:
    """Of the other environments the one that differs least is given, and how many there are."""
    near, far = environment(triton="other"), environment(triton="other", python="other", os="other")
    upload(store, *(bundle([artifact()], here=one) for one in (HERE, far, near)))
    found, others = nearest_other(store, HERE)
    assert found is not None
    assert (dict(found.facts), others) == (dict(near.facts), 2)


def test_own_device_comes_first(store: Store) -> None:
    """Four manifests are read at most, those of the same device before others."""
    same = [environment(triton=str(n), python="other", os="other") for n in range(4)]
    upload(store, *(bundle([artifact()], here=one) for one in [environment(device_name="a device"), *same]))
    found, others = nearest_other(store, HERE)
    assert found in same
    assert others == 5


def test_other_device_is_better_than_none(store: Store) -> None:
    """Where only other devices have published, one of them is given."""
    other = environment(device_name="other device")
    upload(store, bundle([artifact()], here=other))
    assert nearest_other(store, HERE) == (other, 1)


def test_what_serves_beside_any_cpu_is_no_other_environment(store: Store) -> None:
    """A GPU with two kinds of CPUs is two environments, though there is a third folder for what both can use."""
    kinds = [environment(device_type="cuda", device_name="a GPU", cpu_capability=one) for one in ("AVX2", "AVX512")]
    shared = kinds[0].for_any_cpu
    assert shared is not None
    upload(store, *(bundle([artifact()], here=one) for one in [*kinds, shared]))
    assert nearest_other(store, HERE)[1] == 2


def test_nothing_is_near_in_an_empty_store(store: Store) -> None:
    """The environment itself is no other, and an environment that cannot be read is counted but not given."""
    assert nearest_other(store, HERE) == (None, 0)
    upload(store, bundle([artifact()], here=HERE))
    assert nearest_other(store, HERE) == (None, 0)
    store.create(EnvironmentPrefix(f"gpu/{'0' * 16}").manifest(A), b"garbage")
    assert nearest_other(store, HERE) == (None, 1)


def test_withdrawn_bundles_are_not_near(store: Store) -> None:
    """An environment all of whose bundles are withdrawn is neither counted nor read."""
    other = bundle([artifact()], here=environment(triton="other"))
    upload(store, other)
    store.create(prefix_of(other.manifest.environment).mark(other.manifest.bundle, "quarantined"), b"")
    assert nearest_other(store, HERE) == (None, 0)
