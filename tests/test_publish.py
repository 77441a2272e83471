"""A publication that would take too much writes nothing at all."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from megacache import _files_part, _roots
from megacache._artifacts_part import identify
from megacache._blob import Artifact
from megacache._files import CompiledFile
from megacache._publish import Publication
from megacache._recording import Found, Recorded
from megacache._results import PublishResult, PublishStatus
from megacache._roots import Root
from megacache._session import Session
from megacache._stopwatch import Stopwatch
from megacache._store import Store
from tests.builders import artifact, environment, noise, open_store

BIG = [artifact(f"f{n}", noise(10_000, n)) for n in range(3)]


def publish(
    store: Store, *artifacts: Artifact, most: int | None, known: Session, files: Sequence[CompiledFile] = ()
) -> PublishResult:
    """Publish artifacts and files as if PyTorch had recorded them, with a limit."""
    found = Found(
        artifacts={identify(one): one for one in artifacts}, files={_files_part.identify(one): one for one in files}
    )
    recorded = Recorded(found=found, guard={}, known=False, probes=(), environment=environment(), warnings=())
    publication = Publication(recorded, known, Stopwatch(), lambda _: None, url=store.url, labels={}, max_bytes=most)
    return publication.run(lambda: store)


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
    monkeypatch.setattr(_roots, "_registered", {})
    monkeypatch.setattr(_roots, "SUFFIXES", {"engine": frozenset({"", ".py"})})
    _roots.register(Root(name="engine", folder=tmp_path, facts={}, telling=frozenset(), used=lambda: ()))
    files = [CompiledFile(root="engine", path="model", mode=0o644, content=noise(10_000, 7))]
    unlimited = open_store()
    assert publish(unlimited, *BIG, files=files, most=None, known=Session()).files == 1
    assert sum(entry.key.endswith(".msgpack") for entry in unlimited.list()) == 2
    for margin in (-1, 0):
        store = open_store()
        result = publish(store, *BIG, files=files, most=stored(unlimited) + margin, known=Session())
        expected = (PublishStatus.TOO_LARGE, 0) if margin else (PublishStatus.PUBLISHED, stored(unlimited))
        assert (result.status, stored(store)) == expected
