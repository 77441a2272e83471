"""A store that an earlier version wrote is still read: it was published before the package was moved into rooms."""

import zipfile
from pathlib import Path

import pytest

from megacache._bundle import chunks_of
from megacache._catalog import Catalog, Inventory, verify
from megacache._store import Store
from tests.kit.builders import open_store, warm_up
from tests.kit.without_torch import WatchedFolder

STORE = Path(__file__).parent / "stores" / "format-1-1.zip"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Unpack what `publish` of a small model wrote on a CPU, with torch 2.13."""
    with zipfile.ZipFile(STORE) as archive:
        archive.extractall(tmp_path / "store")
    return open_store((tmp_path / "store").as_uri())


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
