"""Receipts that processes leave beside a cache, and what they come to."""

import dataclasses
import json
import time
import uuid

import pytest

from megacache._bundle import EnvironmentPrefix
from megacache._catalog import (
    Inventory,
    StartReceipt,
    leave_receipt,
    list_receipts,
    plan_expiry,
    read_worths,
    receipts_beside,
)
from megacache._store import Store
from megacache.errors import SettingsError
from tests.kit.builders import artifacts, bundle, environment, open_store, prefix_of, upload

HERE, ELSEWHERE = prefix_of(environment()), prefix_of(environment(device_name="another"))
DAY = 86_400.0
WARM = StartReceipt(
    status="loaded",
    torch_version="2.13.0",
    hit=8,
    missed=0,
    bypassed=0,
    seconds_warming=0.5,
    seconds_saved=40.0,
    bytes_stored=1_000,
)
COLD = dataclasses.replace(
    WARM, status="miss", hit=0, missed=8, seconds_saved=0.0, bytes_stored=0, reasons={"nothing is published": 8}
)


@pytest.fixture
def store() -> Store:
    """Open a cache with one bundle."""
    store = open_store(f"memory://{uuid.uuid4().hex}/v1")
    upload(store, bundle(artifacts(1)))
    return store


def left(store: Store, *told: StartReceipt, process: str = "", place: EnvironmentPrefix = HERE) -> None:
    """Leave the receipts of one process."""
    process = process or uuid.uuid4().hex
    for number, one in enumerate(told):
        leave_receipt(receipts_beside(store), place, process, number, one)


def test_starts_add_up(store: Store) -> None:
    """Of each process the last receipt counts, by environment; the reason of the most processes comes first."""
    left(store, COLD, WARM, process="a" * 32)
    left(store, WARM)
    left(store, dataclasses.replace(WARM, hit=6, missed=2, reasons={"other sizes": 1, "nothing is published": 1}))
    left(store, COLD, place=ELSEWHERE)
    found = read_worths(receipts_beside(store), time.time())
    there = {one.prefix: one for one in found.environments}
    assert (there[HERE].starts, there[HERE].hit, there[HERE].total) == ({"loaded": 3}, 22, 24)
    assert (there[HERE].seconds_saved, there[HERE].seconds_warming, there[HERE].bytes_stored) == (120.0, 1.5, 3_000)
    assert (there[ELSEWHERE].rate, there[ELSEWHERE].torch_version) == (0.0, "2.13.0")
    assert (found.reasons, found.left_out) == ([("nothing is published", 2, 9), ("other sizes", 1, 1)], 0)


def test_cache_is_as_it_was(store: Store) -> None:
    """Receipts lie beside the cache: no listing of it shows them."""
    before = [one.key for one in store.list()]
    left(store, WARM)
    assert [one.key for one in store.list()] == before
    assert Inventory.of(store).strangers == ()


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"[" * 10_000,
        b'{"format": 2}',
        json.dumps({**json.loads(WARM.pack()), "hit": -1}).encode(),
        json.dumps({**json.loads(WARM.pack()), "hit": float("nan")}).encode(),
        json.dumps({**json.loads(WARM.pack()), "seconds_saved": 1e300}).encode(),
        json.dumps({**json.loads(WARM.pack()), "missed": True}).encode(),
        json.dumps({**json.loads(WARM.pack()), "reasons": 3}).encode(),
        json.dumps({**json.loads(WARM.pack()), "status": "x" * 20_000}).encode(),
    ],
)
def test_what_is_no_receipt_counts_for_nothing(store: Store, content: bytes) -> None:
    """Whoever may write there can spoil no figure but by receipts."""
    left(store, WARM)
    receipts = receipts_beside(store)
    receipts.create(f"{HERE.path}/{'b' * 32}.0.json", content)
    receipts.create("README", b"hello")
    (found,) = read_worths(receipts, time.time()).environments
    assert found.receipts == (WARM,)


def test_long_reasons_are_cut(store: Store) -> None:
    """A receipt stays small whatever its reasons are, and keeps the most frequent."""
    left(store, dataclasses.replace(COLD, reasons={f"{n} {'x' * 1_000}": n for n in range(100)}))
    (entry,) = receipts_beside(store).list()
    assert entry.size < 3_000
    ((reason, _, lookups), *others) = read_worths(receipts_beside(store), time.time()).reasons
    assert (reason[:4], len(reason), lookups, len(others)) == ("99 x", 200, 99, 7)


def test_life_of_a_receipt(store: Store) -> None:
    """After 30 days a receipt counts no more, and goes; one whose age is not told counts, and stays."""
    left(store, WARM)
    receipts, now = receipts_beside(store), time.time()
    assert plan_expiry(list_receipts(receipts), now + 29 * DAY).keys == ()
    assert read_worths(receipts, now + 31 * DAY).environments == ()
    plan = plan_expiry(list_receipts(receipts), now + 31 * DAY)
    assert len(plan.keys) == 1
    undated = tuple(
        dataclasses.replace(one, entry=dataclasses.replace(one.entry, modified=None)) for one in list_receipts(receipts)
    )
    assert plan_expiry(undated, now + 31 * DAY) == dataclasses.replace(plan, keys=(), untold=1)
    plan.apply(receipts, lambda _: None)
    assert receipts.list() == ()


def test_reading_is_bounded(store: Store) -> None:
    """No more than a number of receipts is read, and it is told how many processes are left out."""
    for _ in range(5):
        left(store, COLD, WARM)
    found = read_worths(receipts_beside(store), time.time(), most=3)
    assert (found.environments[0].starts, found.left_out) == ({"loaded": 3}, 2)


def test_nothing_lies_beside_a_bucket() -> None:
    """A cache that is a whole bucket has no place for receipts, and says what has."""
    for whole in ("s3://megacache-tests", "memory://", "dir::file:///"):
        with pytest.raises(SettingsError, match="use a folder in it"):
            receipts_beside(open_store(whole))
    assert receipts_beside(open_store("s3://megacache-tests/v1")).url == "s3://megacache-tests/v1.receipts"
