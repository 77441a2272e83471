"""Of the workers that find nothing published, one compiles and the others wait; none waits for what will never come."""

from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from threading import Event
from typing import Any

import pytest

import megacache
from megacache import Cache, WarmResult
from megacache._cache import single_flight
from megacache._cache.single_flight import Flight
from megacache._catalog import Catalog, Lease, Listing, NearestCatalog
from megacache._compiler import Job
from megacache._runtime import Deadline, forget
from megacache._runtime.shutdown import _wait_for_all
from megacache._store import Store
from megacache.errors import SettingsError, UnavailableError
from tests.kit.builders import artifact, environment, prefix_of
from tests.kit.servers.moto import MotoServer
from tests.kit.torchless import Compiler

PLACE = prefix_of(environment())
LONG = 60.0


@pytest.fixture(autouse=True)
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a lease count for a second."""
    monkeypatch.setattr(single_flight, "LEASE_TERM", 1.0)
    monkeypatch.setattr(single_flight, "_FIRST_PAUSE", 0.1)
    monkeypatch.setattr(single_flight, "_LONGEST_PAUSE", 0.1)


def warm(folder: Path, wait: float = LONG, timeout: float = LONG) -> WarmResult:
    """Warm as a process would that has never heard of this cache."""
    forget()
    return Cache(str(folder)).warm(wait=wait, timeout=timeout)


def hold(folder: Path) -> Lease:
    """Take a lease as another process would."""
    store = Store.open(str(folder), storage_options=None, deadline=Deadline.after(LONG))
    lease = Lease.take(store, PLACE, Catalog(store, PLACE).list().leases)
    assert lease is not None
    return lease


def leases(folder: Path) -> list[Path]:
    """Name what leases are there."""
    return list(folder.glob("*/*/bundles/lease.*"))


@pytest.mark.usefixtures("compiler")
def test_the_first_compiles_at_once(tmp_path: Path) -> None:
    """Where nobody is ahead, nobody waits; others are told that somebody compiles."""
    result = warm(tmp_path)
    assert result.status == "miss"
    assert result.reason.endswith("this process compiles for the others, which wait")
    assert len(leases(tmp_path)) == 1


def test_others_load_what_it_publishes(compiler: Compiler, tmp_path: Path) -> None:
    """A worker that waits is given the bundle, and the lease is gone with the publication."""
    first = Cache(str(tmp_path))
    first.warm(wait=LONG)
    compiler.compile(artifact("one"))
    with ThreadPoolExecutor() as pool:
        waiting: Future[WarmResult] = pool.submit(lambda: Cache(f"file://{tmp_path}").warm(wait=LONG))
        assert first.publish().status == "published"
        result = waiting.result(LONG)
    assert result.status == "loaded"
    assert not result.reason
    assert not leases(tmp_path)


def compiling(last: Path, compiler: Compiler) -> Cache:
    """Begin as the worker that compiles for the others."""
    first = Cache(str(last))
    first.warm(wait=LONG)
    compiler.compile(artifact("one"))
    return first


def test_what_was_waited_for_is_copied_to_nearer_places(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A worker that waits watches the last place, and fills the others as any other does."""
    near, last = tmp_path / "near", tmp_path / "last"
    first = compiling(last, compiler)
    watching, watch = Event(), Flight._watch

    def told(self: Flight, listing: Listing) -> Listing:
        watching.set()
        return watch(self, listing)

    monkeypatch.setattr(Flight, "_watch", told)
    with ThreadPoolExecutor() as pool:
        waiting = pool.submit(lambda: Cache([str(near), f"file://{last}"]).warm(wait=LONG))
        assert watching.wait(LONG)
        assert first.publish().status == "published"
        assert waiting.result(LONG).status == "loaded"
    _wait_for_all()
    assert len(list(near.glob("*/*/bundles/*.msgpack"))) == 1


def test_what_was_waited_for_is_loaded_though_the_next_listing_fails(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The nearer places may be out of reach by then; where the bundle lies is known."""
    near, last = tmp_path / "near", tmp_path / "last"
    first = compiling(last, compiler)
    watch = Flight._watch

    def fail(*_: object) -> Listing:
        raise UnavailableError("connection reset")

    def published_meanwhile(self: Flight, listing: Listing) -> Listing:
        assert first.publish().status == "published"
        landed = watch(self, listing)
        monkeypatch.setattr(NearestCatalog, "list", fail)
        return landed

    monkeypatch.setattr(Flight, "_watch", published_meanwhile)
    assert Cache([str(near), f"file://{last}"]).warm(wait=LONG).status == "loaded"


@pytest.mark.usefixtures("compiler")
def test_holder_that_died_is_followed(tmp_path: Path) -> None:
    """A lease without new beats counts no more, and the next worker takes its place."""
    hold(tmp_path)
    assert "compiles for the others" in warm(tmp_path).reason
    assert [path.name for path in leases(tmp_path)] == ["lease.2.0"]


@pytest.mark.usefixtures("compiler")
def test_publication_that_takes_long_hides_no_holder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer lease without beats is that of a publication: whoever holds the one before goes on compiling."""
    holder = hold(tmp_path)
    pause = Flight._sleep

    def sleep(self: Flight, seconds: float) -> None:
        holder.renew()
        pause(self, seconds)

    monkeypatch.setattr(Flight, "_sleep", sleep)
    assert Lease.claim(holder._store, PLACE, 2) is not None
    assert "it waited 2.5 s for another worker" in warm(tmp_path, wait=2.5).reason


@pytest.mark.usefixtures("compiler")
def test_follower_may_have_waited_longer_than_one_call_may_take(tmp_path: Path) -> None:
    """The timeout is that of each step, and the wait comes on top of it."""
    hold(tmp_path)
    assert "compiles for the others" in warm(tmp_path, timeout=0.9).reason


@pytest.mark.usefixtures("compiler")
def test_store_that_fails_for_a_moment_ends_no_wait(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A lease that cannot be taken now is tried for again."""
    create, faults = Store.create, [UnavailableError("it is down")] * 2

    def fail(*arguments: Any) -> bool:
        if faults:
            raise faults.pop()
        return create(*arguments)

    monkeypatch.setattr(Store, "create", fail)
    assert "compiles for the others" in warm(tmp_path).reason
    assert not faults


@pytest.mark.parametrize("wait", [LONG, 0])
@pytest.mark.parametrize("what", ["list-type=2", "msgpack", "zst"])
def test_who_waits_for_others_waits_for_a_busy_store(
    compiler: Compiler, faulty: MotoServer, name: str, what: str, wait: float
) -> None:
    """A store that only says that it has too much to do, at any step, is no reason to compile; without `wait` it is."""
    cache = Cache(f"{faulty.server.url}/{name}", storage_options=faulty.server.storage_options)
    compiler.compile(artifact("one"))
    assert cache.publish().status == "published"
    forget()
    # The client asks three times by itself.
    faulty.fault(f"GET .*{name}.*{what}" if what != "list-type=2" else f"GET .*{what}.*{name}", "503", times=4)
    assert cache.warm(wait=wait, timeout=LONG).status == ("loaded" if wait else "unavailable")


def test_publication_that_fails_ends_the_wait_of_others(compiler: Compiler, tmp_path: Path) -> None:
    """Whatever comes of it, nothing more is to be expected."""
    first = Cache(str(tmp_path))
    first.warm(wait=LONG)
    compiler.compile(artifact("one"))
    assert first.publish(labels={"x": "y" * 10_000}).status == "unavailable"
    assert not leases(tmp_path)


@pytest.mark.usefixtures("compiler")
def test_block_that_fails_ends_the_wait_of_others(tmp_path: Path) -> None:
    """It publishes nothing."""
    with pytest.raises(RuntimeError), megacache.synchronized(str(tmp_path), wait=LONG):
        raise RuntimeError
    assert not leases(tmp_path)


@pytest.mark.usefixtures("compiler")
def test_wait_in_vain_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker compiles itself when the wait is over, and says so; the lease stays with its holder."""
    monkeypatch.setattr(single_flight, "LEASE_TERM", LONG)
    hold(tmp_path)
    result = warm(tmp_path, 0.3)
    assert result.status == "miss"
    assert result.reason.endswith("it waited 0.3 s for another worker, which has published nothing")
    assert result.seconds["wait"] >= 0.3
    assert [path.name for path in leases(tmp_path)] == ["lease.1.0"]


@pytest.mark.usefixtures("compiler")
def test_worker_that_cannot_publish_takes_no_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It waits for one who can, and not at all for longer than that one would need to show itself."""
    monkeypatch.setenv("MEGACACHE_READ_ONLY", "1")
    assert "no other worker compiles, and this one cannot publish" in warm(tmp_path).reason
    assert not leases(tmp_path)


@pytest.mark.usefixtures("compiler")
def test_process_does_not_wait_for_itself(tmp_path: Path) -> None:
    """A second warm start of the process that compiles goes on at once."""
    warm(tmp_path)
    again = Cache(str(tmp_path)).warm(wait=LONG)
    assert "this process compiles for the others" in again.reason
    assert "wait" not in again.seconds


@pytest.mark.usefixtures("compiler")
def test_rank_of_a_job_waits_for_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ranks wait for one another while they compile: one that waited for a publication would stop the others."""
    monkeypatch.setattr("megacache._compiler.job", lambda: Job(size=8, rank=3, address=None))
    hold(tmp_path)
    result = warm(tmp_path)
    assert "it is one of 8 ranks of a job" in result.reason
    assert "wait" not in result.seconds


@pytest.mark.usefixtures("compiler")
def test_without_wait_there_is_no_lease(tmp_path: Path) -> None:
    """It is off by default."""
    warm(tmp_path, 0)
    assert not leases(tmp_path)


@pytest.mark.parametrize("wait", [-1, float("nan"), float("inf"), "5", None, True])
@pytest.mark.usefixtures("compiler")
def test_wait_that_is_no_number_is_refused(wait: object, tmp_path: Path) -> None:
    """The error names it and says what to give."""
    result = warm(tmp_path, wait)  # type: ignore[arg-type]
    assert isinstance(result.error, SettingsError)
    assert "wait is" in result.reason
    assert "0 waits for no other worker" in result.reason
