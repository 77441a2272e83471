"""Bundles are delivered whole and verified, or not at all, within bounded memory."""

from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import pytest

from megacache._bundle import parse_blob
from megacache._bundle.chunk import Chunk
from megacache._catalog import Delivery, NodeCache, Order
from megacache._catalog.delivery import deliver
from megacache._runtime import WINDOW
from megacache._store import Store
from megacache.errors import FormatError, IntegrityError, MegacacheError, MissingError
from tests.kit.builders import (
    Bundle,
    artifacts,
    bundle,
    compiled_file,
    environment,
    finish_workers,
    noise,
    open_store,
    plain,
    prefix_of,
    upload,
)

PLACE = prefix_of(environment())


def made(seed: int, chunks: int = 3) -> Bundle:
    """Make a bundle of several chunks, each of about 4,000 bytes that do not compress."""
    found = artifacts(4 * chunks, seed=seed)
    return bundle(*(found[n : n + 4] for n in range(0, len(found), 4)))


def weight(one: Bundle) -> int:
    """Tell how much of a window a bundle takes."""
    return sum(chunk.ref.stored_size + chunk.ref.raw_size for chunk in one.chunks)


def delivered(
    store: Store, *bundles: Bundle, window_size: int = WINDOW, node: NodeCache | None = None
) -> list[Delivery]:
    """Deliver bundles to the end."""
    orders = [Order(manifest=one.manifest, files=True) for one in bundles]
    found = list(
        deliver(store, orders, locate=lambda _, ref: PLACE.chunk(ref.digest), node=node, window_size=window_size)
    )
    finish_workers()
    return found


def keys(*deliveries: Delivery) -> list[tuple[str, str, bytes]]:
    """Give all artifacts in some deliveries."""
    return sorted(plain(one) for delivery in deliveries for blob in delivery.contents for one in parse_blob(blob.blob))


def content(one: Bundle) -> list[tuple[str, str, bytes]]:
    """Give all artifacts in a bundle, from the chunks it was made of."""
    store = open_store()
    upload(store, one)
    return keys(*delivered(store, one))


def with_spoiled(one: Bundle, which: int, spoil: Callable[[Chunk], bytes | None]) -> Store:
    """Make a store with a bundle, one of whose chunks is something else or missing."""
    store, bad = open_store(), one.chunks[which]
    stored = spoil(bad)
    if stored is not None:
        store.create(PLACE.chunk(bad.ref.digest), stored)
    upload(store, replace(one, chunks=tuple(chunk for chunk in one.chunks if chunk is not bad)))
    return store


def test_bundles_are_delivered_whole() -> None:
    """Each bundle comes once, with all its chunks and what they hold, each blob beside its own reference."""
    store, bundles = open_store(), [made(seed, chunks=1 + seed % 5) for seed in range(10)]
    upload(store, *bundles)
    found = {delivery.manifest.bundle: delivery for delivery in delivered(store, *bundles)}
    assert len(found) == len(bundles)
    for one in bundles:
        delivery = found[one.manifest.bundle]
        assert delivery.fault is None
        assert len(delivery.contents) == len(one.chunks)
        assert {unpacked.ref.digest for unpacked in delivery.contents} == {chunk.ref.digest for chunk in one.chunks}
        assert all(unpacked.ref.raw_size == len(unpacked.blob) for unpacked in delivery.contents)
        assert len(keys(delivery)) == len(one.manifest.artifacts)


def test_nothing_wanted_is_nothing_delivered() -> None:
    """Without bundles nothing is asked and nothing comes."""
    assert delivered(open_store()) == []


def far_store() -> Store:
    """Open an empty store that is not taken for a near one."""
    store = open_store()
    store.url = f"far://{store.url}"
    return store


def test_node_serves_what_it_has_kept(tmp_path: Path) -> None:
    """Bundles come whole, by a store that has lost their chunks, and what the node lacks is the store's fault again."""
    bundles = [made(1), made(2, chunks=40)]
    store = far_store()
    upload(store, *bundles)
    assert len(delivered(store, *bundles, node=NodeCache(tmp_path / "chunks", 1 << 20))) == 2
    found = delivered(far_store(), *bundles, node=NodeCache(tmp_path / "chunks", 1 << 20))
    assert [delivery.fault for delivery in found] == [None, None]
    assert keys(*found) == keys(*delivered(store, *bundles))
    (tmp_path / "chunks" / f"{bundles[0].chunks[0].ref.digest.hex}.zst").unlink()
    found = delivered(far_store(), *bundles, node=NodeCache(tmp_path / "chunks", 1 << 20))
    assert [type(delivery.fault) for delivery in found] == [MissingError, type(None)]


def test_node_keeps_no_chunk_of_a_near_store(tmp_path: Path) -> None:
    """A place that is as near as the node is read where it is."""
    store, one = open_store(), made(1)
    upload(store, one)
    node = NodeCache(tmp_path / "chunks", 1 << 20)
    (delivery,) = delivered(store, one, node=node)
    assert (delivery.fault, node.contents().chunks) == (None, 0)
    assert delivery.sources == {store.url: sum(chunk.ref.stored_size for chunk in one.chunks)}


SPOILED: list[tuple[Callable[[Chunk], bytes | None], type[MegacacheError]]] = [
    (lambda _: None, MissingError),
    (lambda _: b"", IntegrityError),
    (lambda chunk: chunk.stored[:-1], IntegrityError),
    (lambda chunk: chunk.stored[:-1] + bytes([chunk.stored[-1] ^ 1]), IntegrityError),
    (lambda chunk: noise(chunk.ref.stored_size), IntegrityError),
]


@pytest.mark.parametrize(("spoil", "error"), SPOILED, ids=["missing", "empty", "truncated", "flipped", "replaced"])
@pytest.mark.parametrize("which", [0, 1, 2])
def test_bad_chunk_spoils_its_bundle_only(
    which: int, spoil: Callable[[Chunk], bytes | None], error: type[MegacacheError]
) -> None:
    """Of a bundle with a bad chunk nothing is delivered but the fault, once; other bundles come whole."""
    bad, good = made(1), made(2)
    store = with_spoiled(bad, which, spoil)
    upload(store, good)
    found = delivered(store, bad, good)
    (fault,) = (delivery for delivery in found if delivery.manifest == bad.manifest)
    assert type(fault.fault) is error
    assert (fault.contents, fault.last) == ((), False)
    (whole,) = (delivery for delivery in found if delivery.manifest == good.manifest)
    assert keys(whole) == content(good)


def test_many_faults_are_one() -> None:
    """A bundle of which all chunks are gone is told once."""
    bad = made(1, chunks=20)
    (found,) = delivered(open_store(), bad)
    assert isinstance(found.fault, MissingError)


def test_bytes_after_the_chunk_do_not_matter() -> None:
    """No more is read than the manifest declares, however long the object is."""
    one = made(1)
    found = delivered(with_spoiled(one, 0, lambda chunk: chunk.stored + noise(100)), one)
    assert keys(*found) == content(one)


def test_bundle_that_lacks_an_artifact_is_not_whole() -> None:
    """A bundle whose manifest names an artifact that is in none of its chunks is a fault, not a success."""
    one = made(1)
    lacking = Bundle(manifest=replace(one.manifest, chunks=one.manifest.chunks[1:]), chunks=one.chunks[1:])
    store = open_store()
    upload(store, lacking)
    found = delivered(store, lacking)
    assert [(type(delivery.fault), delivery.contents) for delivery in found] == [(FormatError, ())]


def test_bundle_without_chunks_is_not_whole() -> None:
    """A bundle that names artifacts and no chunk is a fault, not silence."""
    one = made(1)
    found = delivered(open_store(), replace(one, manifest=replace(one.manifest, chunks=()), chunks=()))
    assert [type(delivery.fault) for delivery in found] == [FormatError]


@pytest.mark.parametrize("window_size", [0, 1, 5_000, 20_000, 50_000])
def test_every_window_comes_to_an_end(window_size: int) -> None:
    """However small the window is, everything is delivered; bundles that fit into it come whole, others in pieces."""
    store, bundles = open_store(), [made(seed, chunks=1 + seed % 5) for seed in range(10)]
    upload(store, *bundles)
    found = delivered(store, *bundles, window_size=window_size)
    for one in bundles:
        parts = [delivery for delivery in found if delivery.manifest == one.manifest]
        assert len(parts) == (1 if weight(one) <= window_size else len(one.chunks))
        assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]
        assert keys(*parts) == content(one)


def test_fault_may_follow_the_pieces() -> None:
    """Of a bundle larger than the window, verified chunks come one by one, and one fault for all that are bad."""
    one = made(1, chunks=6)
    store = with_spoiled(one, 3, lambda _: b"")
    found = delivered(store, one, window_size=1)
    assert [type(delivery.fault) for delivery in found] == [type(None)] * 3 + [IntegrityError]
    assert [len(delivery.contents) for delivery in found] == [1, 1, 1, 0]
    assert not any(delivery.last for delivery in found)


def test_faults_free_the_window() -> None:
    """Bundles that fail give their bytes back, so that those after them still come."""
    bad, good = [made(seed) for seed in range(20)], made(20)
    store = open_store()
    for one in bad:
        upload(store, replace(one, chunks=one.chunks[:2]))
    upload(store, good)
    found = delivered(store, *bad, good, window_size=weight(good) + 1000)
    assert [delivery.manifest for delivery in found if delivery.fault is None] == [good.manifest]
    assert len(found) == 21


def test_who_leaves_early_leaves_no_worker() -> None:
    """When the caller stops in the middle, those that wait for the window are let go."""
    store, bundles = open_store(), [made(seed) for seed in range(10)]
    upload(store, *bundles)
    orders = [Order(manifest=one.manifest, files=True) for one in bundles]
    arrivals = deliver(store, orders, locate=lambda _, ref: PLACE.chunk(ref.digest), window_size=weight(bundles[0]))
    with closing(arrivals):
        next(arrivals)
    finish_workers()


def test_files_come_if_they_are_wanted() -> None:
    """A bundle's compiled files are delivered beside its artifacts to who wants them, and not fetched for others."""
    store, one = open_store(), bundle(artifacts(3), files=[compiled_file("ab/a.so"), compiled_file("cd/b.so")])
    upload(store, one)
    (with_files,) = delivered(store, one)
    assert [file.path for unpacked in with_files.contents for file in unpacked.files] == ["ab/a.so", "cd/b.so"]
    order = Order(manifest=one.manifest, files=False)
    upload(without := open_store(), replace(one, chunks=one.chunks[:1]))
    (delivery,) = deliver(without, [order], locate=lambda _, ref: PLACE.chunk(ref.digest))
    assert delivery.fault is None
    assert keys(delivery) == sorted(map(plain, artifacts(3)))


def test_missing_files_are_a_fault() -> None:
    """A bundle that promises a compiled file which is in no chunk is damaged as a whole."""
    whole, less = (
        bundle(artifacts(1), files=[compiled_file("ab/a.so"), compiled_file("cd/b.so")]),
        compiled_file("ab/a.so"),
    )
    lacking = bundle(artifacts(1), files=[less])
    store, lying = open_store(), replace(lacking, manifest=replace(lacking.manifest, files=whole.manifest.files))
    upload(store, lying)
    (delivery,) = delivered(store, lying)
    assert isinstance(delivery.fault, FormatError)
    assert "cd/b.so" in str(delivery.fault)
