"""Bundles are copied between stores, verified on the way, and a run that was cut short is taken up."""

from dataclasses import replace
from pathlib import Path

import pytest

from megacache import _trust
from megacache._bundle import open_envelope, pack_signatures
from megacache._catalog import Catalog, Inventory, Selected, Transfer, Transferred
from megacache._store import Store
from megacache._trust import TrustPolicy
from megacache.errors import FormatError, IntegrityError, MissingError, UntrustedError
from tests.kit.builders import Bundle, artifact, artifacts, bundle, environment, open_store, prefix_of, upload

OTHER = environment(triton="other")


@pytest.fixture
def source() -> Store:
    """Open an empty store in memory."""
    return open_store()


@pytest.fixture
def target(tmp_path: Path) -> Store:
    """Open an empty store on disk."""
    return open_store(tmp_path.as_uri())


def copy(
    source: Store, target: Store, steps: list[int] | None = None, policy: TrustPolicy | None = None
) -> Transferred:
    """Copy all that is visible, and see that it was foreseen."""
    selected = [Selected(holding=one, bundles=tuple(one.visible)) for one in Inventory.of(source).holdings]
    before = objects(target)
    foreseen = Transfer(source, target, lambda _: None, policy).outlook(selected)
    assert objects(target) == before
    steps = [] if steps is None else steps
    done = Transfer(source, target, lambda step: steps.append(step.done), policy).run(selected)
    assert set(done.copied) <= set(foreseen.copied)
    assert set(done.present) <= set(foreseen.present)
    assert done.chunks <= foreseen.chunks
    return done


def objects(store: Store) -> dict[str, bytes]:
    """Give all objects of a store."""
    return {entry.key: store.read(entry.key, size=entry.size) for entry in store.list()}


def key_of(one: Bundle) -> str:
    """Name the first chunk of a bundle."""
    return prefix_of(one.manifest.environment).chunk(one.chunks[0].ref.digest)


def test_copy_is_the_same_byte_for_byte(source: Store, target: Store) -> None:
    """All environments arrive as they were, and copying again moves nothing."""
    upload(source, bundle([artifact("a")]), bundle(artifacts(3)), bundle([artifact("b")], here=OTHER))
    steps: list[int] = []
    done = copy(source, target, steps)
    assert (len(done.copied), done.present, done.failed) == (3, (), ())
    assert objects(target) == objects(source)
    assert steps[-1] == done.bytes_stored
    again = copy(source, target)
    assert (again.copied, len(again.present), again.chunks, again.bytes_stored) == ((), 3, 0, 0)


def test_withdrawn_bundle_stays_where_it_is(source: Store, target: Store) -> None:
    """What a mark hides is not among the visible, and so is not copied."""
    one = bundle([artifact()])
    upload(source, one)
    source.create(prefix_of(one.manifest.environment).mark(one.manifest.bundle, "quarantined"), b"")
    assert copy(source, target).copied == ()
    assert objects(target) == {}


def test_interrupted_copy_is_taken_up(source: Store, target: Store) -> None:
    """Chunks that an earlier run has brought are not copied again, and the manifest comes at last."""
    one = bundle([artifact("a")], [artifact("b")])
    upload(source, one)
    target.create(key_of(one), one.chunks[0].stored)
    done = copy(source, target)
    assert (done.copied, done.chunks) == ((one.manifest.bundle,), 1)
    assert objects(target) == objects(source)


def test_shared_chunk_is_copied_once(source: Store, target: Store) -> None:
    """A chunk that two bundles name goes over the wire once."""
    one, two = bundle([artifact()], labels={"n": "1"}), bundle([artifact()], [artifact("more")])
    upload(source, one, two)
    done = copy(source, target)
    assert (len(done.copied), done.chunks) == (2, 2)


def test_damaged_bundle_is_not_copied(source: Store, target: Store) -> None:
    """A bundle with a chunk of other bytes is left out with its fault, the sound one arrives."""
    bad, good = bundle([artifact("bad")]), bundle([artifact("good")])
    upload(source, good)
    source.create(key_of(bad), b"x" * len(bad.chunks[0].stored))
    upload(source, bad)
    done = copy(source, target)
    assert done.copied == (good.manifest.bundle,)
    ((failed, fault),) = done.failed
    assert failed == bad.manifest.bundle
    assert isinstance(fault, IntegrityError)
    assert key_of(bad) not in objects(target)


def test_chunk_of_another_size_than_declared_is_not_copied(source: Store, target: Store) -> None:
    """What no warm start would load is not copied, either, although its digest is right."""
    one = bundle([artifact()])
    declared = replace(one.chunks[0].ref, stored_size=len(one.chunks[0].stored) + 100)
    upload(source, replace(one, manifest=replace(one.manifest, chunks=(declared,))))
    ((_, fault),) = copy(source, target).failed
    assert isinstance(fault, IntegrityError)
    assert "size of chunk" in str(fault)
    assert objects(target) == {}


def test_bundle_without_its_chunk_is_not_copied(source: Store, target: Store) -> None:
    """A chunk that is gone makes its bundle fail, and nothing of it becomes visible."""
    one = bundle([artifact()])
    upload(source, one)
    source.delete(key_of(one))
    ((_, fault),) = copy(source, target).failed
    assert isinstance(fault, MissingError)
    assert objects(target) == {}


def test_wrong_size_in_the_target_is_told(source: Store, target: Store) -> None:
    """A chunk that lies in the target with another size is not taken for the right one."""
    one = bundle([artifact()])
    upload(source, one)
    target.create(key_of(one), b"half")
    ((_, fault),) = copy(source, target).failed
    assert "in the target is damaged" in str(fault)
    assert list(objects(target)) == [key_of(one)]


def test_unreadable_manifest_is_not_copied(source: Store, target: Store) -> None:
    """A manifest that is none is told and left."""
    place = prefix_of(environment())
    source.create(place.manifest("a" * 32), b"garbage")
    ((failed, _),) = copy(source, target).failed
    assert failed == "a" * 32
    assert objects(target) == {}


def test_what_is_present_and_lacks_a_chunk_is_made_whole(source: Store, target: Store) -> None:
    """A manifest in the target is no proof of its chunks: one that is gone is copied, and only that one."""
    one = bundle([artifact("a")], [artifact("b")])
    upload(source, one)
    upload(target, one)
    target.delete(key_of(one))
    done = copy(source, target)
    assert (done.copied, done.present, done.failed, done.chunks) == ((), (one.manifest.bundle,), (), 1)
    assert objects(target) == objects(source)


def test_what_is_present_is_read_by_its_own_manifest(source: Store, target: Store) -> None:
    """A bundle may be stored in other chunks in the target: what counts are those that its manifest there names."""
    one, other = bundle([artifact("a")], [artifact("b")]), bundle([artifact("a"), artifact("b")])
    assert one.manifest.bundle == other.manifest.bundle
    upload(source, one)
    upload(target, other)
    assert copy(source, target).chunks == 0
    target.delete(key_of(other))
    ((failed, fault),) = copy(source, target).failed
    assert failed == one.manifest.bundle
    assert isinstance(fault, MissingError)


def test_wrong_size_of_what_is_present_is_told(source: Store, target: Store) -> None:
    """A bundle whose manifest, or a chunk, is damaged in the target is not called present."""
    one, two = bundle([artifact("a")]), bundle([artifact("b")])
    upload(source, one, two)
    target.create(key_of(one), b"half")
    upload(target, one)
    target.create(prefix_of(environment()).manifest(two.manifest.bundle), b"garbage")
    done = copy(source, target)
    assert (done.copied, done.present, done.chunks) == ((), (), 0)
    faults = dict(done.failed)
    assert isinstance(faults[one.manifest.bundle], IntegrityError)
    assert isinstance(faults[two.manifest.bundle], FormatError)


def test_only_what_is_signed_for_the_source_is_copied(source: Store, target: Store, tmp_path: Path) -> None:
    """With trusted keys what they signed for the source, then or later, is copied; no chunk of another bundle is."""
    place, here = prefix_of(environment()), environment()
    for name in ("key", "other"):
        _trust.generate_key(tmp_path / name)
    signer, other = (_trust.load_signer(tmp_path / name) for name in ("key", "other"))
    signed, later, unsigned, wrong, moved = (bundle([artifact(f"a{n}")]) for n in range(5))
    for one in (signed, later, unsigned, wrong, moved):
        upload_chunks(source, one)
    catalog = Catalog.of(source, here)
    for one, by in ((signed, signer), (later, None), (unsigned, None), (wrong, other), (moved, None)):
        catalog.announce(one.manifest, by)
    for one, scope in ((later, source.scope), (moved, "s3://another/place")):
        payload = open_envelope(source.read(place.manifest(one.manifest.bundle), size=1 << 20)).payload
        signature = _trust.sign(signer, payload, scope)
        source.create(place.signature(one.manifest.bundle, signature.tag(payload)), pack_signatures([signature]))
    upload(target, unsigned)
    before = objects(target)
    done = copy(source, target, policy=TrustPolicy(keys=(signer.public_key,), threshold=1))
    assert sorted(done.copied) == sorted(one.manifest.bundle for one in (signed, later))
    assert done.present == ()
    assert sorted(dict(done.failed)) == sorted(one.manifest.bundle for one in (unsigned, wrong, moved))
    assert all(isinstance(fault, UntrustedError) for _, fault in done.failed)
    assert len(objects(target)) == len(before) + 4


def upload_chunks(store: Store, one: Bundle) -> None:
    """Put the chunks of a bundle into a store."""
    for chunk in one.chunks:
        store.create(prefix_of(one.manifest.environment).chunk(chunk.ref.digest), chunk.stored)
