"""A lease is held by one worker, is renewed by it, and leaves nothing behind that others would have to clean up."""

import os
import threading
from collections.abc import Callable

import pytest

from megacache._bundle import LeaseName
from megacache._catalog import Catalog, Inventory, Lease, plan_removal
from megacache._store import Store
from megacache.errors import AccessError, UnavailableError
from tests.kit.builders import artifact, bundle, environment, open_store, prefix_of, upload

PLACE = prefix_of(environment())


@pytest.fixture
def store() -> Store:
    """Open an empty store."""
    return open_store()


def take(store: Store) -> Lease | None:
    """Take the lease that is next, by a listing."""
    return Lease.take(store, PLACE, listed(store))


def listed(store: Store) -> tuple[LeaseName, ...]:
    """Give all that a listing shows of leases."""
    return Catalog(store, PLACE).list().leases


def beats(store: Store) -> list[tuple[int, int]]:
    """Give number and beat of what is there."""
    return [(one.number, one.beat) for one in listed(store)]


def test_one_of_many_gets_it(store: Store) -> None:
    """Of workers that all saw an empty store, one is given the lease."""
    found: list[Lease | None] = []
    workers = [threading.Thread(target=lambda: found.append(Lease.take(store, PLACE, ()))) for _ in range(16)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert sum(lease is not None for lease in found) == 1
    assert beats(store) == [(1, 0)]


def test_renewal_leaves_one_beat(store: Store) -> None:
    """Each beat takes the place of the last; the object that makes the lease unique stays."""
    lease = take(store)
    assert lease is not None
    for _ in range(3):
        lease.renew()
    assert beats(store) == [(1, 0), (1, 3)]
    assert Lease.take(store, PLACE, ()) is None


def test_released_lease_is_gone_and_never_comes_back(store: Store) -> None:
    """A release takes all of it away, and a beat that was on its way writes nothing more."""
    lease = take(store)
    assert lease is not None
    lease.renew()
    lease.release()
    lease.renew()
    assert beats(store) == []
    assert take(store) is not None


def test_next_holder_removes_what_the_last_one_left(store: Store) -> None:
    """Who takes over has the next number, and one who only slept does not take it back."""
    asleep = take(store)
    assert asleep is not None
    asleep.renew()
    follower = take(store)
    assert follower is not None
    assert follower.number == 2
    assert beats(store) == [(2, 0)]
    asleep.release()
    assert beats(store) == [(2, 0)]


def test_beat_that_failed_is_tried_again(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A store that fails for a moment leaves no beat behind that others would take for news."""
    lease = take(store)
    assert lease is not None
    lease.renew()
    with monkeypatch.context() as patch:
        patch.setattr(Store, "create", failing(UnavailableError("it is down")))
        with pytest.raises(UnavailableError):
            lease.renew()
    lease.renew()
    assert beats(store) == [(1, 0), (1, 2)]
    lease.release()
    assert beats(store) == []


def test_writer_that_may_not_delete_takes_over_all_the_same(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a dead holder left stays, and the new lease is held."""
    assert take(store) is not None
    monkeypatch.setattr(Store, "delete", failing(AccessError("forbidden")))
    follower = take(store)
    assert follower is not None
    assert beats(store) == [(1, 0), (2, 0)]


def failing(error: Exception) -> Callable[..., None]:
    """Give a method that fails."""

    def fail(*_: object, **__: object) -> None:
        raise error

    return fail


def test_forked_child_does_not_release_it(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """The lease is its parent's, who still compiles."""
    lease = take(store)
    assert lease is not None
    monkeypatch.setattr(os, "getpid", lambda: -1)
    lease.release()
    assert beats(store) == [(1, 0)]


def test_leases_are_none_of_the_strangers_and_go_with_the_environment(store: Store) -> None:
    """Whoever lists a cache knows them, and removing all bundles removes them as well."""
    one = bundle([artifact("one")])
    upload(store, one)
    assert take(store) is not None
    inventory = Inventory.of(store)
    assert not inventory.strangers
    (holding,) = inventory.holdings
    plan_removal(store, holding, [one.manifest.bundle]).apply(store, lambda _: None)
    assert not store.list()
