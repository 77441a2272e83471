"""A publication that would take too much writes nothing at all."""

import pytest

from megacache._artifacts_part import identify
from megacache._blob import Artifact
from megacache._publish import Publication
from megacache._recording import Found, Recorded
from megacache._results import PublishResult, PublishStatus
from megacache._session import Session
from megacache._stopwatch import Stopwatch
from megacache._store import Store
from tests.builders import artifact, environment, noise, open_store

BIG = [artifact(f"f{n}", noise(10_000, n)) for n in range(3)]


def publish(store: Store, *artifacts: Artifact, most: int | None, known: Session) -> PublishResult:
    """Publish artifacts as if PyTorch had recorded them, with a limit."""
    found = Found(artifacts={identify(one): one for one in artifacts})
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
        assert f"more than {stored(unlimited) - 1:,} bytes" in result.reason
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
