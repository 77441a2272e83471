"""What a cache holds, in figures."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from megacache._bundle import Manifest, seal
from megacache._catalog import BundleState, EnvironmentFigures, Inventory, read_figures
from megacache._catalog.figures import figures_of
from megacache._runtime import Done
from megacache._store import Store
from megacache.errors import AccessError, MissingError
from tests.kit.builders import artifact, artifacts, bundle, compiled_file, environment, open_store, prefix_of, upload

HERE = environment(torch_version="2.13.0+cpu")
PLACE = prefix_of(HERE)


@pytest.fixture
def store() -> Store:
    """Open an empty store."""
    return open_store()


def published(store: Store, key: str, created: str = "2026-11-02T10:00:00+00:00", **labels: str) -> Manifest:
    """Publish a bundle of two artifacts and a compiled file at a given time."""
    one = bundle([artifact(key), artifact(f"{key}2")], here=HERE, files=[compiled_file(content=key.encode())])
    dated = replace(one, manifest=replace(one.manifest, created=created, labels=labels))
    upload(store, dated)
    return dated.manifest


def only(store: Store) -> EnvironmentFigures:
    """Give the figures of the one environment."""
    (found,) = read_figures(store, Inventory.of(store).holdings)
    return found


def test_environment_in_figures(store: Store) -> None:
    """An environment tells its version of torch, its bytes, what its bundles hold and when they were published."""
    published(store, "a", "2026-11-02T12:00:00+02:00", team="vision")
    published(store, "b", "2026-11-01T00:00:00")
    found = only(store)
    assert (found.prefix, found.torch_version) == (PLACE, "2.13.0+cpu")
    assert found.size == sum(entry.size for entry in store.list())
    assert (found.artifacts, found.files) == (4, 2)
    assert found.published == (datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 2, 10, tzinfo=UTC))
    assert sorted(one.labels.get("team", "") for one in found.bundles) == ["", "vision"]


def test_states(store: Store) -> None:
    """A bundle serves, is quarantined, is superseded, or cannot be used; only what serves is counted further."""
    quarantined, superseded, lacking, _ = (published(store, key) for key in "abcd")
    store.create(PLACE.mark(quarantined.bundle, "superseded"), b"\n")
    store.create(PLACE.mark(quarantined.bundle, "quarantined"), b"\n")
    store.create(PLACE.mark(superseded.bundle, "superseded"), b"\n")
    store.create(PLACE.mark("e" * 32, "quarantined"), b"\n")  # of a bundle that is gone
    store.create(PLACE.manifest("f" * 32), b"garbage")
    store.delete(PLACE.chunk(lacking.chunks[0].digest))
    found = only(store)
    assert found.states == {
        BundleState.SERVING: 1,
        BundleState.QUARANTINED: 1,
        BundleState.SUPERSEDED: 1,
        BundleState.UNUSABLE: 2,
    }
    assert (found.artifacts, found.files) == (2, 1)
    assert len(found.published) == 4


@pytest.mark.parametrize("created", ["", "yesterday", "9" * 50, "0001-01-01T00:00:00+14:00"])
def test_date_that_is_none(store: Store, created: str) -> None:
    """A bundle whose manifest has no date is counted, and has none."""
    published(store, "a", created)
    assert only(store).published == ()
    assert only(store).states[BundleState.SERVING] == 1


def test_version_is_that_of_the_place(store: Store) -> None:
    """A manifest that lies in another environment's folder does not say which torch that is."""
    one = bundle(artifacts(1), here=environment(torch_version="6.6.6"))
    store.create(PLACE.manifest(one.manifest.bundle), seal(one.manifest))
    assert only(store).torch_version == ""
    published(store, "a")
    assert only(store).torch_version == "2.13.0+cpu"


def test_manifest_that_is_not_given(store: Store) -> None:
    """A manifest that was removed meanwhile is not counted; one that the store refuses leaves no figures."""
    one = published(store, "a")
    (holding,) = Inventory.of(store).holdings
    assert figures_of(holding, [Done(one.bundle, None, MissingError("gone"))]).bundles == ()
    with pytest.raises(AccessError):
        figures_of(holding, [Done(one.bundle, None, AccessError("refused"))])
