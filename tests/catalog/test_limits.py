"""A warm start takes no more out of a store than it may, and takes bundles whole."""

from dataclasses import replace

import pytest

from megacache._catalog import Order, affordable, affordable_manifests, weight
from tests.corpus.stores import HERE
from tests.kit.builders import Bundle, artifacts, bundle, compiled_file, noise, open_store, upload
from tests.kit.without_torch import WatchedFolder, warm


def made(number: int, *, count: int = 2) -> Bundle:
    """Make a bundle of some thousand bytes, created after those with smaller numbers."""
    one = bundle(artifacts(count, seed=number), here=HERE)
    return replace(one, manifest=replace(one.manifest, created=f"2026-01-01T00:00:{number:02}+00:00"))


def order(one: Bundle, *, files: bool = True) -> Order:
    """Want a bundle."""
    return Order(manifest=one.manifest, files=files)


SIZE = weight(order(made(0)).chunks)


def test_newest_bundles_are_chosen() -> None:
    """Where not all fit, the newest do; an older one that still fits is taken after one that does not."""
    old, middle, new = made(0), made(1, count=20), made(2)
    orders = [order(one) for one in (old, middle, new)]
    assert affordable(orders, SIZE - 1) == frozenset()
    assert affordable(orders, SIZE) == {new.manifest.bundle}
    assert affordable(orders, 3 * SIZE) == {old.manifest.bundle, new.manifest.bundle}
    assert affordable(orders, 30 * SIZE) == {one.manifest.bundle for one in (old, middle, new)}


def test_what_is_not_wanted_does_not_count() -> None:
    """Compiled files count where they are to be fetched, and a stored size counts that is larger than the raw one."""
    one = bundle(artifacts(1), files=[compiled_file(content=noise(10_000))])
    assert weight(order(one).chunks) > 10_000 > weight(order(one, files=False).chunks)
    swollen = replace(one.chunks[0].ref, stored_size=1 << 30)
    assert weight([swollen]) == 1 << 30


def test_small_manifests_are_read_first(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of more manifests, or larger ones, than one process reads, the small ones are chosen."""
    sizes = {"a": 50, "b": 10, "c": 40, "d": 20}
    assert affordable_manifests(sizes) == sizes
    monkeypatch.setattr("megacache._catalog.limits.MAX_BUNDLES", 3)
    assert list(affordable_manifests(sizes)) == ["b", "d", "c"]
    monkeypatch.setattr("megacache._catalog.limits.MAX_MANIFEST_BYTES", 69)
    assert list(affordable_manifests(sizes)) == ["b", "d"]


def test_bundle_beyond_the_budget_is_left_out_whole(watched_place: WatchedFolder) -> None:
    """A warm start loads the newest bundles that fit into `max_bytes`, names the others, and counts them as sound."""
    store, bundles = open_store(), [made(number) for number in range(3)]
    upload(store, *bundles)
    result = warm(store, watched_place, max_bytes=2 * SIZE)
    assert (result.status, len(watched_place.loaded)) == ("loaded", 2)
    assert set(result.bundles) == {one.manifest.bundle for one in bundles[1:]}
    (warning,) = result.warnings
    assert warning.startswith(f"bundle {bundles[0].manifest.bundle} was left out: its {SIZE:,} bytes are more than")


def test_warm_start_without_a_budget_is_a_miss(watched_place: WatchedFolder) -> None:
    """Where nothing fits, nothing is downloaded, and the reason says so."""
    store = open_store()
    upload(store, made(0))
    result = warm(store, watched_place, max_bytes=SIZE - 1)
    assert (result.status, result.bytes_stored, watched_place.loaded) == ("miss", 0, [])
    assert "more than is left of max_bytes" in result.reason


def test_too_many_manifests_are_told(watched_place: WatchedFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is left unread is counted in one warning, and the rest is loaded."""
    store = open_store()
    upload(store, *(made(number) for number in range(3)))
    monkeypatch.setattr("megacache._catalog.limits.MAX_BUNDLES", 2)
    result = warm(store, watched_place)
    assert (result.status, len(result.bundles)) == ("loaded", 2)
    assert result.warnings[0].startswith("1 of 3 bundles were left out: at most 10,000 manifests")


def test_round_after_a_vanished_chunk_has_what_is_left(watched_place: WatchedFolder) -> None:
    """The second listing of a warm start does not begin with a new budget."""
    store, lacking, new = open_store(), made(2), made(1)
    upload(store, replace(lacking, chunks=()), new)
    result = warm(store, watched_place, max_bytes=2 * SIZE - 1)
    assert (result.status, watched_place.loaded) == ("miss", [])
