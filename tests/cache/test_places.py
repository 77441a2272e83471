"""Several places in one URL: the verbs, their results and what is told."""

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import megacache
from megacache import Cache, WarmResult
from megacache._runtime import forget
from megacache._runtime.shutdown import _wait_for_all
from megacache._settings import Settings
from tests.kit.builders import artifact
from tests.kit.disks import read_only
from tests.kit.torchless import Compiler

ONE, TWO = artifact("f1", b"one" * 1000), artifact("f2", b"two" * 1000)


@pytest.fixture(autouse=True)
def finished() -> Iterator[None]:
    """Let no copying outlast a test."""
    yield
    _wait_for_all()


@pytest.fixture
def near(tmp_path: Path) -> Path:
    """Name the near place."""
    return tmp_path / "near"


@pytest.fixture
def last(tmp_path: Path) -> Path:
    """Name the cache."""
    return tmp_path / "last"


def warm(*places: Path, **options: Any) -> WarmResult:
    """Warm as a process would that has never heard of these places, and wait for what it copies."""
    forget()
    result = Cache(" ".join(map(str, places))).warm(**options)
    _wait_for_all()
    return result


def publish(compiler: Compiler, *places: Path) -> megacache.PublishResult:
    """Publish as a process would that has warmed from these places."""
    forget()
    cache = Cache(places)
    cache.warm()
    _wait_for_all()
    assert compiler.recorded
    return cache.publish()


def manifests(folder: Path) -> int:
    """Count the bundles in a store."""
    return len(list(folder.glob("*/*/bundles/*.msgpack")))


def test_second_start_reads_what_the_first_has_copied(compiler: Compiler, near: Path, last: Path) -> None:
    """A publication goes to the last place; the first start copies it, and says what served it, as does the next."""
    compiler.compile(ONE)
    assert publish(compiler, near, last).url == str(last)
    assert (manifests(near), manifests(last)) == (0, 1)
    first = warm(near, last)
    assert (first.status, first.url, first.warnings) == ("loaded", f"{near} {last}", ())
    assert first.sources == {str(last): first.bytes_stored}
    second = warm(near, last)
    assert second.sources == {str(near): second.bytes_stored}
    assert megacache.receipt().sources == second.sources
    assert megacache.receipt().to_json()["sources"] == second.sources
    assert warm(near).status == "loaded"


def test_copies_are_not_published_again(compiler: Compiler, near: Path, last: Path) -> None:
    """What was loaded from a near place is known to be in the cache."""
    compiler.compile(ONE)
    publish(compiler, near, last)
    warm(near, last)
    compiler.compile(ONE)
    assert publish(compiler, near, last).status == "unchanged"
    compiler.compile(ONE, TWO)
    assert publish(compiler, near, last).status == "published"
    assert (manifests(near), manifests(last)) == (1, 2)


def test_start_that_loads_nothing_leaves_copies_to_gc(compiler: Compiler, near: Path, last: Path) -> None:
    """If all that was copied has been withdrawn behind, the copies are marked all the same."""
    compiler.compile(ONE)
    published = publish(compiler, last)
    warm(near, last)
    (folder,) = last.glob("*/*/bundles")
    Path(folder, f"{published.bundles[0]}.quarantined").touch()
    Path(folder, f"{published.bundles[0]}.msgpack").unlink()
    assert warm(near, last).status == "miss"
    assert [path.suffix for path in sorted(near.glob("*/*/bundles/*"))] == [".copied", ".msgpack", ".superseded"]


def test_last_place_that_is_empty_leaves_copies_alone(compiler: Compiler, near: Path, last: Path) -> None:
    """It may be a folder whose mount is gone: nothing is loaded from copies, and none is left to gc."""
    compiler.compile(ONE)
    publish(compiler, last)
    warm(near, last)
    gone = last.rename(last.with_name("elsewhere"))
    last.mkdir()
    assert warm(near, last).status == "miss"
    assert [path.suffix for path in sorted(near.glob("*/*/bundles/*"))] == [".copied", ".msgpack"]
    last.rmdir()
    gone.rename(last)
    assert set(warm(near, last).sources) == {str(near)}


def test_publication_goes_to_the_last_place_that_takes_it(compiler: Compiler, near: Path, last: Path) -> None:
    """Where the cache is only read, a near place holds what is new, and the next start finds it there."""
    compiler.compile(ONE)
    publish(compiler, near, last)
    compiler.compile(ONE, TWO)
    with read_only(last):
        published = publish(compiler, near, last)
        assert (published.status, published.url) == ("published", str(near))
        (warning,) = published.warnings
        assert warning.startswith(f"published to {near}, because {last} refused it: ")
        found = warm(near, last)
        assert len(found.bundles) == 2
        assert set(found.sources) == {str(near)}
        assert publish(compiler, near, last).status == "unchanged"
    assert manifests(last) == 1


def test_publication_warns_once(compiler: Compiler, near: Path, last: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is said of the cache that refuses is not said again of the near place that takes the bundle."""
    monkeypatch.setattr("megacache._cache.publish._MANY_BUNDLES", 1)
    compiler.compile(ONE)
    publish(compiler, last)
    compiler.compile(ONE, TWO)
    with read_only(last):
        many, refused = publish(compiler, near, last).warnings
    assert many.startswith("1 bundles are published")
    assert refused.startswith(f"published to {near}")


def test_refusal_of_all_places_is_that_of_the_cache(compiler: Compiler, near: Path, last: Path) -> None:
    """Nothing is published, and the reason is why the cache itself refused."""
    compiler.compile(ONE)
    for folder in (near, last):
        folder.mkdir()
    with read_only(near), read_only(last):
        published = publish(compiler, near, last)
    assert (published.status, published.url) == ("read_only", str(last))
    assert str(last) in published.reason


def test_cache_that_is_down_is_not_replaced(compiler: Compiler, near: Path, last: Path) -> None:
    """A publication waits for the cache: put into a near place, others would never see it."""
    compiler.compile(ONE)
    last.write_text("no folder")
    assert publish(compiler, near, last).status == "unavailable"
    assert not near.exists()


def test_cache_that_is_down_is_told(
    compiler: Compiler, near: Path, last: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A start from copies alone says that there may be more."""
    compiler.compile(ONE)
    publish(compiler, near, last)
    warm(near, last)
    last.rename(last.with_name("away"))
    last.write_text("no folder")
    with caplog.at_level(logging.WARNING, "megacache"):
        found = warm(near, last)
    assert (found.status, set(found.sources)) == ("loaded", {str(near)})
    assert any("may hold more" in warning for warning in found.warnings)
    assert "may hold more" in caplog.text


def test_reader_that_may_not_write_copies_nothing(
    compiler: Compiler, near: Path, last: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`MEGACACHE_READ_ONLY` is for near places, too."""
    compiler.compile(ONE)
    publish(compiler, last)
    monkeypatch.setenv("MEGACACHE_READ_ONLY", "1")
    assert warm(near, last).status == "loaded"
    assert not near.exists()


def test_variable_names_places(compiler: Compiler, near: Path, last: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All calls without a URL use them."""
    monkeypatch.setenv("MEGACACHE_URL", f"{near} {last}")
    compiler.compile(ONE)
    with megacache.synchronized() as sync:
        pass
    assert sync.published is not None
    assert (sync.warmed.url, sync.published.url) == (f"{near} {last}", str(last))
    assert Settings.read().places(None) == (str(near), str(last))


def test_worker_that_finds_something_near_waits_for_nobody(compiler: Compiler, near: Path, last: Path) -> None:
    """Nor does it take a lease, which would lie at the last place."""
    compiler.compile(ONE)
    publish(compiler, near)
    found = warm(near, last, wait=30)
    assert (found.status, found.seconds.get("wait")) == ("loaded", None)
    assert not last.exists()


def test_lease_is_at_the_last_place(compiler: Compiler, near: Path, last: Path) -> None:
    """Those who find nothing anywhere wait for one another there, and load what is published."""
    compiler.compile(ONE)
    cache = Cache([near, last])
    assert cache.warm(wait=30).status == "miss"
    assert len(list(last.glob("*/*/bundles/lease.*"))) == 1
    assert cache.publish().status == "published"
    found = warm(near, last, wait=30)
    assert (found.status, set(found.sources)) == ("loaded", {str(last)})
    assert not list(last.glob("*/*/bundles/lease.*"))


def test_miss_of_all_places_names_them(near: Path, last: Path, compiler: Compiler) -> None:
    """Nothing is written by a miss."""
    found = warm(near, last)
    assert (found.status, found.url) == ("miss", f"{near} {last}")
    assert compiler.loaded == []
    assert not near.exists()
