"""The bundles of an environment are listed, read and written, and near ones are found."""

from collections.abc import Sequence
from pathlib import Path
from typing import overload

import pytest

from megacache._bundle import MAX_MANIFEST_SIZE, ChunkRef, Payload, open_chunk, parse_blob, seal, unpack_chunk
from megacache._catalog import Catalog, Order
from megacache._store import Store
from megacache.errors import FormatError, MissingError, UnavailableError
from tests.kit.builders import (
    artifact,
    artifacts,
    bundle,
    environment,
    finish_workers,
    open_store,
    payload,
    plain,
    prefix_of,
)

HERE = environment()
PLACE = prefix_of(HERE)
A, B, C = "a" * 32, "b" * 32, "c" * 32


@pytest.fixture(params=["memory", "file"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """Open an empty store."""
    return open_store(tmp_path.as_uri() if request.param == "file" else None)


@pytest.fixture
def catalog(store: Store) -> Catalog:
    """Make the catalog of one environment."""
    return Catalog.of(store, HERE)


class Taken(Sequence[Payload]):
    """Payloads that count how many of them were taken."""

    def __init__(self, payloads: list[Payload]) -> None:
        self.payloads = payloads
        self.taken = 0

    def __len__(self) -> int:
        return len(self.payloads)

    @overload
    def __getitem__(self, index: int) -> Payload: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[Payload]: ...
    def __getitem__(self, index: int | slice) -> Payload | Sequence[Payload]:
        self.taken += 1
        return self.payloads[index]


def test_empty_store_lists_nothing(catalog: Catalog) -> None:
    """Where nobody has published there is nothing, and that is no fault."""
    assert (catalog.list().visible, catalog.list().withdrawn) == ({}, frozenset())


def test_listing_tells_bundles_and_marks(store: Store, catalog: Catalog) -> None:
    """Manifests are visible with their sizes, marks withdraw, and whatever else lies there means nothing."""
    for name, size in [(f"{B}.msgpack", 2), (f"{A}.msgpack", 1), (f"{C}.msgpack", 3), (f"{C}.quarantined", 0)]:
        store.create(f"{PLACE.bundles}/{name}", b"x" * size)
    store.create(f"{PLACE.bundles}/README.md", b"x")
    store.create(f"{PLACE.bundles}/deeper/{'d' * 32}.msgpack", b"x")
    store.create(f"{prefix_of(environment(triton='other')).bundles}/{'d' * 32}.msgpack", b"x")
    found = catalog.list()
    assert list(found.visible.items()) == [(A, 1), (B, 2)]
    assert found.withdrawn == {C}


def test_announced_bundles_are_read(store: Store, catalog: Catalog) -> None:
    """What was announced is listed and read as it was written."""
    manifests = {one.manifest.bundle: one.manifest for one in (bundle(artifacts(2, seed=n)) for n in range(20))}
    assert all(catalog.announce(manifest) for manifest in manifests.values())
    found = {done.item: done.result() for done in catalog.read(catalog.list().visible)}
    assert found == manifests
    assert Catalog.of(store, environment(triton="other")).list().visible == {}


def test_bundle_is_announced_once(catalog: Catalog) -> None:
    """The second to announce a bundle is told so, and the first manifest stays."""
    first, second = bundle([artifact()], labels={"by": "1"}).manifest, bundle([artifact()], labels={"by": "2"}).manifest
    assert first.bundle == second.bundle
    assert catalog.announce(first)
    assert not catalog.announce(second)
    (found,) = catalog.read(catalog.list().visible)
    assert found.result().labels == {"by": "1"}


def test_bad_manifest_is_a_fault_of_its_own(store: Store, catalog: Catalog) -> None:
    """Damaged, renamed, oversized and vanished manifests are faults of theirs; the others are read."""
    good = bundle([artifact()]).manifest
    catalog.announce(good)
    store.create(PLACE.manifest(A), b"garbage")
    store.create(PLACE.manifest(B), seal(good))
    sizes = {**catalog.list().visible, C: 10, "d" * 32: MAX_MANIFEST_SIZE + 1}
    found = {done.item: done for done in catalog.read(sizes)}
    assert found[good.bundle].value == good
    faults = {name: type(done.fault) for name, done in found.items() if done.fault is not None}
    assert faults == {A: FormatError, B: FormatError, C: MissingError, "d" * 32: FormatError}
    assert str(found[B].fault).startswith("manifest.bundle: ")
    assert str(MAX_MANIFEST_SIZE) in str(found["d" * 32].fault)


def test_written_chunks_are_there(store: Store, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    """One chunk is written for each group, under its digest, and each is told of once, however small the window is."""
    monkeypatch.setattr("megacache._catalog.catalog.UPLOAD_WINDOW", 10_000)
    groups = [tuple(artifacts(3, seed=n)) for n in range(20)]
    manifest = bundle(*groups).manifest
    told: list[ChunkRef] = []
    refs = catalog.write([payload(group) for group in groups], told.append)
    assert refs == tuple(sorted(manifest.chunks, key=lambda ref: ref.digest))
    assert set(told) == set(refs)
    assert len(told) == len(refs)
    blobs = [
        unpack_chunk(manifest, ref, store.read(PLACE.chunk(ref.digest), size=ref.stored_size)).blob for ref in refs
    ]
    found = sorted(plain(one) for blob in blobs for one in parse_blob(blob))
    assert found == sorted(plain(one) for group in groups for one in group)


@pytest.mark.parametrize(("age", "written"), [(3_599.0, 1), (3_601.0, 2), (None, 2)])
def test_old_chunk_is_not_relied_on(
    store: Store, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, age: float | None, written: int
) -> None:
    """A chunk that lay there long before is written under its other name: nobody knows whether a bundle needs it."""
    made = payload(artifacts(3))
    (first,) = catalog.write([made], lambda _: None)
    monkeypatch.setattr(store, "age", lambda _: age)
    (second,) = catalog.write([made], lambda _: None)
    assert len(store.list()) == written
    assert (first == second) == (written == 1)
    for ref in (first, second):
        assert open_chunk(ref, store.read(PLACE.chunk(ref.digest), size=ref.stored_size)) == made.build()
    assert catalog.write([made], lambda _: None) == (second,)


def test_what_fits_is_known_before_it_is_written(
    store: Store, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunks are compressed to know what they take, unless they are small anyway; nothing is written."""
    groups = [tuple(artifacts(3, seed=n)) for n in range(20)]
    payloads = [payload(group) for group in groups]
    total = sum(chunk.stored_size for chunk in bundle(*groups).manifest.chunks)
    monkeypatch.setattr("megacache._catalog.catalog.UPLOAD_WINDOW", 1)
    assert (catalog.fits(payloads, total), catalog.fits(payloads, total - 1)) == (True, False)
    monkeypatch.setattr("megacache._catalog.catalog.pack_chunk", None)
    assert catalog.fits(payloads, 3 * total)
    assert store.list() == ()


def test_written_and_announced_is_delivered(catalog: Catalog) -> None:
    """The way of a bundle through a store: write, announce, list, read, deliver."""
    one = bundle(artifacts(3))
    catalog.write([payload(artifacts(3))], lambda _: None)
    catalog.announce(one.manifest)
    manifests = [done.result() for done in catalog.read(catalog.list().visible)]
    (delivery,) = catalog.deliver([Order(manifest=one, files=True) for one in manifests])
    assert sorted(map(plain, parse_blob(delivery.contents[0].blob))) == sorted(map(plain, artifacts(3)))


def test_uploads_end_with_the_first_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When one chunk cannot be written the rest is not tried any more, even while the error is being held."""
    monkeypatch.setattr("megacache._catalog.catalog.UPLOAD_WINDOW", 1)
    (tmp_path / PLACE.path.partition("/")[0]).touch()
    payloads = Taken([payload([one]) for one in artifacts(200)])
    with pytest.raises(UnavailableError) as caught:
        Catalog.of(open_store(tmp_path.as_uri()), HERE).write(payloads, lambda _: None)
    finish_workers()
    assert payloads.taken < 100
    assert caught.value.__traceback__ is not None
