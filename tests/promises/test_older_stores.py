"""Stores that earlier versions wrote are still read."""

import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from megacache import _compiler
from megacache._bundle import chunks_of
from megacache._catalog import Catalog, Inventory, verify
from megacache._store import Store
from tests.kit.builders import open_store, warm_up
from tests.kit.without_torch import WatchedFolder

STORES = Path(__file__).parent / "stores"


def unpacked(name: str, folder: Path) -> Store:
    """Unpack a store."""
    with zipfile.ZipFile(STORES / name) as archive:
        archive.extractall(folder / "store")
    return open_store((folder / "store").as_uri())


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Unpack what `publish` of a small model wrote on a CPU, with torch 2.13."""
    return unpacked("format-1-1.zip", tmp_path)


@pytest.fixture
def gpu_store(tmp_path: Path) -> Store:
    """Unpack what was published on a GPU when all of it was filed by the CPU, in two bundles: one for C++ libraries."""
    return unpacked("format-1-3.zip", tmp_path)


def test_it_is_sound(store: Store) -> None:
    """Its one bundle is found where it lies, whole and without a fault."""
    inventory = Inventory.of(store)
    (holding,) = inventory.holdings
    (verdict,) = verify(store, holding, lambda _: None).verdicts
    assert (inventory.strangers, verdict.faults) == ((), ())


def test_warm_start_loads_it(store: Store, watched_place: WatchedFolder) -> None:
    """In the environment that it names, its artifacts and compiled files are loaded."""
    (holding,) = Inventory.of(store).holdings
    (done,) = Catalog(store, holding.prefix).read(holding.visible)
    manifest = done.result()
    assert (manifest.environment.fingerprint, manifest.labels) == (holding.prefix.fingerprint, {"commit": "before"})
    result = warm_up(store, manifest.environment, watched_place.folder / "starts")
    assert (result.status, result.bundles) == ("loaded", (manifest.bundle,))
    assert len(watched_place.loaded) == len(chunks_of(manifest, files=False)) == 1


@pytest.mark.parametrize("flags", ["avx avx2", "avx avx2 newer"])
def test_store_of_a_gpu_is_read_as_before(
    flags: str, gpu_store: Store, watched_place: WatchedFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside its CPU all graphs are loaded, and libraries where the kernels tell the same flags; others miss."""
    (holding,) = Inventory.of(gpu_store).holdings
    manifests = [done.result() for done in Catalog(gpu_store, holding.prefix).read(holding.visible)]
    here = manifests[0].environment
    (guard,) = (one.files.guard for one in manifests if "cpu_flags" in one.files.guard)
    monkeypatch.setattr(
        _compiler, "toolchain", lambda *_: {**guard, "cpu_flags": flags, "cpu_target": "avx avx2 newer"}
    )
    result = warm_up(gpu_store, here, watched_place.folder / "starts")
    assert (result.status, len(watched_place.loaded)) == ("loaded", 1)
    equal = flags == guard["cpu_flags"]
    assert (result.files, len(result.warnings)) == ((1, 0) if equal else (0, 1))
    other = replace(here, facts={**here.facts, "cpu_capability": "another"})
    missed = warm_up(gpu_store, other, watched_place.folder / "others")
    assert (missed.status, "cpu_capability is another here" in missed.reason) == ("miss", True)
