"""A publication that would take too much, or that nobody would load, writes nothing at all; none outlasts its time."""

import pickle
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from megacache import _trust
from megacache._bundle import Artifact, CompiledFile, identify_artifact, identify_file
from megacache._cache import PublishResult, PublishStatus
from megacache._cache.publish import Publication
from megacache._cache.recording import Found, Recorded
from megacache._cache.session import Session
from megacache._compiler import roots
from megacache._compiler.roots import Root
from megacache._runtime import Deadline
from megacache._settings import Settings
from megacache._store import Store
from megacache._trust import Keys, Signing
from megacache.errors import DeadlineError
from tests.kit.builders import Graph, artifact, bundle, call_on, environment, noise, open_store, upload

BIG = [artifact(f"f{n}", noise(10_000, n)) for n in range(3)]


def publish(
    store: Store,
    *artifacts: Artifact,
    most: int | None = None,
    known: Session,
    files: Sequence[CompiledFile] = (),
    signing: Callable[[], Signing] = Signing,
) -> PublishResult:
    """Publish artifacts and files as if PyTorch had recorded them, with a limit."""
    found = Found(
        artifacts={identify_artifact(one): one for one in artifacts}, files={identify_file(one): one for one in files}
    )
    recorded = Recorded(found=found, guard={}, known=False, probes=(), environment=environment(), warnings=())
    return Publication(call_on(store, signing), recorded, known, max_bytes=most).run()


def stored(store: Store) -> int:
    """Add up the chunks in a store."""
    return sum(entry.size for entry in store.list() if entry.key.endswith(".zst"))


@pytest.mark.parametrize("margin", [-1, 0])
def test_limit_is_exact(margin: int) -> None:
    """What takes as many bytes as are allowed is published; with one byte less nothing is, and the reason says so."""
    unlimited = open_store()
    publish(unlimited, *BIG, most=None, known=Session())
    store = open_store()
    result = publish(store, *BIG, most=stored(unlimited) + margin, known=Session())
    if margin:
        assert (result.status, bool(result), store.list()) == (PublishStatus.TOO_LARGE, False, ())
        assert f"more than the {stored(unlimited) - 1:,} bytes" in result.reason
    else:
        assert (result.status, stored(store)) == (PublishStatus.PUBLISHED, stored(unlimited))


def test_limit_is_of_what_is_stored() -> None:
    """What compresses well is measured as it is stored."""
    result = publish(open_store(), artifact(content=b"x" * 1_000_000), most=10_000, known=Session())
    assert result.status is PublishStatus.PUBLISHED
    assert result.bytes_raw > 10_000 > result.bytes_stored


def test_limit_is_of_one_publication() -> None:
    """What was refused is new the next time; what was published does not count again."""
    store, known = open_store(), Session()
    assert publish(store, *BIG, most=100, known=known).status is PublishStatus.TOO_LARGE
    statuses = [publish(store, *BIG[: n + 1], most=11_000, known=known).status for n in range(3)]
    assert statuses == [PublishStatus.PUBLISHED] * 3
    assert stored(store) > 11_000


def test_limit_is_of_all_bundles_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of another program go into a bundle of their own; if both do not fit, neither is written."""
    monkeypatch.setattr("megacache._bundle.files.PROGRAM_SUFFIXES", {"engine": frozenset({"", ".py"})})
    roots.register(Root(name="engine", folder=tmp_path, facts={}, telling=frozenset(), used=lambda: ()))
    files = [CompiledFile(root="engine", path="model", mode=0o644, content=noise(10_000, 7))]
    unlimited = open_store()
    assert publish(unlimited, *BIG, files=files, most=None, known=Session()).files == 1
    assert sum(entry.key.endswith(".msgpack") for entry in unlimited.list()) == 2
    for margin in (-1, 0):
        store = open_store()
        result = publish(store, *BIG, files=files, most=stored(unlimited) + margin, known=Session())
        expected = (PublishStatus.TOO_LARGE, 0) if margin else (PublishStatus.PUBLISHED, stored(unlimited))
        assert (result.status, stored(store)) == expected


def graph(number: int, guard: str | None) -> Artifact:
    """Make what two compilations of one graph give: other bytes under the same key."""
    return artifact(content=pickle.dumps(Graph([str(number)], guard)))


def test_variant_is_stored_once() -> None:
    """What others have published covers what has its kind, key and guard, and no other variant of that key."""
    store = open_store()
    variants = [graph(1, "s0 <= 64"), graph(2, "65 <= s0"), graph(3, None), artifact(content=b"of unknown form")]
    statuses = [publish(store, one, known=Session()).status for one in variants]
    assert statuses == [PublishStatus.PUBLISHED] * 4
    again = [graph(4, "s0 <= 64"), graph(5, "65 <= s0"), graph(6, None), variants[3]]
    statuses = [publish(store, one, known=Session()).status for one in again]
    assert statuses == [PublishStatus.COVERED] * 4


def test_bundle_that_tells_no_guards_covers_what_is_in_it() -> None:
    """An older manifest does not say which variants it holds: others are published beside it, once."""
    store = open_store()
    old = bundle([graph(1, "s0 <= 64")])
    assert old.manifest.artifacts[0].guard is None
    upload(store, old)
    published = [publish(store, graph(n, "s0 <= 64"), known=Session()).status for n in (1, 2, 3)]
    assert published == [PublishStatus.COVERED, PublishStatus.PUBLISHED, PublishStatus.COVERED]


@pytest.fixture
def keys(tmp_path: Path) -> list[Path]:
    """Make two key pairs."""
    paths = [tmp_path / f"key{n}.pem" for n in range(2)]
    for path in paths:
        _trust.generate_key(path)
    return paths


@pytest.mark.parametrize(
    ("signs", "told"), [(None, "no key signs it"), (1, "the signing key is not one of the trusted keys")]
)
def test_what_nobody_would_load_is_not_published(keys: list[Path], signs: int | None, told: str) -> None:
    """With trusted keys, and no key of theirs to sign with, nothing is uploaded, and the reason says what to set."""
    named = Keys(trusted=(f"{keys[0]}.pub",), sign_with=None if signs is None else keys[signs])
    store = open_store()
    result = publish(store, *BIG, known=Session(), signing=lambda: named.signing(Settings.read()))
    assert (result.status, bool(result), store.list()) == (PublishStatus.READ_ONLY, False, ())
    assert told in result.reason
    assert "set MEGACACHE_SIGNING_KEY to a trusted key, or unset MEGACACHE_TRUSTED_KEYS" in result.reason


@pytest.mark.parametrize("trusted", [True, False])
def test_what_somebody_loads_is_published(keys: list[Path], trusted: bool) -> None:
    """With a key that is trusted, or where nobody says whom to trust, a publication goes on."""
    named = Keys(trusted=(f"{keys[1]}.pub", f"{keys[0]}.pub") if trusted else None, threshold=2 if trusted else None)
    signing = replace(named, sign_with=keys[0]).signing(Settings.read())
    assert publish(open_store(), *BIG, known=Session(), signing=lambda: signing).status is PublishStatus.PUBLISHED
    assert trusted or not Keys().signing(Settings.read()).objection


def test_key_service_that_hangs_does_not_outlast_the_deadline(
    keys: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A signer that takes longer than the publication may is left behind, and nothing becomes visible."""
    monkeypatch.setattr(_trust, "sign", lambda *_: time.sleep(30))
    store = open_store().within(Deadline.after(1))
    signer, began = _trust.load_signer(keys[0]), time.monotonic()
    with pytest.raises(DeadlineError, match="signing"):
        publish(store, *BIG, known=Session(), signing=lambda: Signing(signer=signer))
    assert time.monotonic() - began < 10
    assert not [entry.key for entry in store.within(Deadline.after(60)).list() if entry.key.endswith(".msgpack")]


def test_many_bundles_are_told_of(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who publishes to an environment with many bundles is told how to merge them."""
    monkeypatch.setattr("megacache._cache.publish._MANY_BUNDLES", 2)
    store = open_store()
    upload(store, bundle([artifact("a")]))
    assert not publish(store, artifact("b"), known=Session()).warnings
    (told,) = publish(store, artifact("c"), known=Session()).warnings
    assert "2 bundles are published for this environment" in told
    assert f"megacache compact {store.url}" in told
