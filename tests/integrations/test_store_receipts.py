"""Receipts that programs leave beside their cache with `MEGACACHE_RECEIPTS=store`."""

import errno
import getpass
import json
import os
import socket
import sys
from pathlib import Path

import pytest

from megacache import Receipt, WarmResult, WarmStatus
from megacache._compiler import Lookups
from megacache.errors import DeadlineError
from megacache.integrations._receipts import Receipts
from megacache.integrations._store_receipts import StoreReceipts, start_receipt
from tests.integrations.test_autostart import RUN, Start, ended, start
from tests.kit import faulty_disk
from tests.kit.builders import artifacts, bundle, open_store, upload
from tests.kit.command import document, run
from tests.kit.disks import hanging
from tests.kit.places import timed

__all__ = ["start"]
PROGRAM = (sys.executable, "-m", "tests.kit.program")


def test_program_leaves_its_receipt(start: Start, tmp_path: Path) -> None:
    """Each start leaves one small object, which the report counts: first a miss with its reason, then hits.

    What is left names no path, host, user or URL.
    """
    store = tmp_path / "store"
    for _ in range(2):
        code, _, stderr = ended(start(*RUN, str(store), *PROGRAM, "once", MEGACACHE_RECEIPTS="store"), "input")
        assert code == 0, stderr
    written = list((tmp_path / "store.receipts").rglob("*.json"))
    assert len(written) == 2
    assert max(path.stat().st_size for path in written) < 600
    found = document("report", store)["receipts"]
    (one,) = found["environments"]
    assert (one["processes"], one["starts"], one["hit"], one["lookups"]) == (2, {"loaded": 1, "miss": 1}, 2, 4)
    assert one["seconds_saved"] > 0
    assert found["reasons"] == [{"reason": "nothing that fits is published", "processes": 1, "lookups": 2}]
    private = (str(tmp_path), "/", "://", socket.gethostname(), getpass.getuser())
    for text in map(Path.read_text, written):
        assert [word for word in private if word in text] == [], text


def test_folder_and_store(start: Start, tmp_path: Path) -> None:
    """A folder gets its receipt as well, and so does the judge of the hit rate."""
    (tmp_path / "folder").mkdir()
    command = (*RUN, "--min-hit-rate", "0", str(tmp_path / "store"), *PROGRAM, "once")
    code, _, stderr = ended(start(*command, MEGACACHE_RECEIPTS=f"store:{tmp_path / 'folder'}"), "input")
    assert (code, "0 of 2 lookups hit, in 1 process\n" in stderr) == (0, True), stderr
    assert len(list((tmp_path / "folder").glob("*.json"))) == 1
    assert len(list((tmp_path / "store.receipts").rglob("*.json"))) == 1


def test_folder_that_hangs_keeps_nobody(tmp_path: Path) -> None:
    """The end of a process does not wait for a folder that does not answer, and the other ones get their receipts."""
    with hanging(tmp_path / "hangs"):
        timed(lambda: Receipts(f"{tmp_path}/hangs:{tmp_path}").write(Receipt(), None, at_end=1.0), 2.0)
    assert len(list(tmp_path.glob("*.json"))) == 1


@pytest.mark.parametrize(
    "variables",
    [
        {"MEGACACHE_READ_ONLY": "1"},
        pytest.param({"MEGACACHE_EXIT_TIMEOUT": "0"}, marks=pytest.mark.nightly),
    ],
    ids=str,
)
def test_no_receipt_is_written(start: Start, tmp_path: Path, variables: dict[str, str]) -> None:
    """A process that may not write, or whose end may not be delayed, leaves none."""
    command = (*RUN, str(tmp_path / "store"), *PROGRAM, "once")
    code, _, stderr = ended(start(*command, MEGACACHE_RECEIPTS="store", **variables), "input")
    assert code == 0, stderr
    assert not (tmp_path / "store.receipts").exists()


def test_two_receipts_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process leaves one once it has started and one at its end, and none that says the same again."""
    monkeypatch.setenv("MEGACACHE_URL", str(tmp_path / "store"))
    receipts = StoreReceipts()
    for hits, at_end in ((1, None), (2, None), (1, 5.0), (3, 0), (3, 5.0), (4, 5.0)):
        receipts.leave(Receipt(inductor=Lookups(hit=hits)), None, at_end=at_end)
    written = sorted((tmp_path / "store.receipts").rglob("*.json"))
    assert [path.name.split(".")[1] for path in written] == ["0", "1"]
    assert [json.loads(path.read_text())["hit"] for path in written] == [1, 3]


def test_store_that_fails_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nothing can be left, the program goes on."""
    monkeypatch.setenv("MEGACACHE_URL", "s3://a-whole-bucket")
    StoreReceipts().leave(Receipt(), None, at_end=None)
    monkeypatch.setenv("MEGACACHE_URL", "/proc/none/store")
    StoreReceipts().leave(Receipt(), None, at_end=None)


@pytest.mark.parametrize(
    ("warmed", "reasons"),
    [
        (None, {"no warm start": 3}),
        (WarmResult(url="", status=WarmStatus.MISS), {"nothing that fits is published": 3}),
        (
            WarmResult(url="", status=WarmStatus.MISS, differs=("torch_version", "torch_key")),
            {"nothing that fits is published: the nearest differs in torch_version, torch_key": 3},
        ),
        (
            WarmResult(url="", status=WarmStatus.UNAVAILABLE, error=DeadlineError("s3://bucket did not answer")),
            {"unavailable: DeadlineError": 3},
        ),
        (
            WarmResult(url="", status=WarmStatus.LOADED),
            {"the graph is not published": 2, "the graph is published for other sizes": 1},
        ),
    ],
)
def test_reasons(warmed: WarmResult | None, reasons: dict[str, int]) -> None:
    """Each lookup that missed has a reason, in words that are the same for all to whom it happens."""
    receipt = Receipt(inductor=Lookups(hit=1, missed=3, guard_missed=1))
    assert start_receipt(receipt, warmed, "2.13").reasons == reasons


def test_hit_that_another_rank_lacks() -> None:
    """A lookup that PyTorch drops because another rank missed does not tell of a graph that is not published."""
    receipt = Receipt(aot_autograd=Lookups(missed=3, guard_missed=1, rank_missed=1))
    assert start_receipt(receipt, WarmResult(url="", status=WarmStatus.LOADED), "").reasons == {
        "the graph is not published": 1,
        "the graph is published for other sizes": 1,
        "another rank of the job did not find the graph": 1,
    }


def test_words_of_pytorch_are_made_anonymous() -> None:
    """PyTorch's reason for a bypass is told without paths and URLs."""
    why = f"no cache for {Path.home()}/model.py, see https://user@host/x"
    receipt = Receipt(inductor=Lookups(bypassed=2, reasons={why: 2}))
    (reason,) = start_receipt(receipt, None, "").reasons
    assert reason == "PyTorch does not cache the graph: no cache for <path>, see <url>"


def test_costs_of_a_parent_count_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a parent has fetched and saved is not told again by the workers that it has forked."""
    monkeypatch.setenv("MEGACACHE_URL", str(tmp_path / "store"))
    inherited = Receipt(inductor=Lookups(hit=2), seconds_warming=3.0, seconds_saved=50.0, bytes_stored=1000)
    now = Receipt(inductor=Lookups(hit=3), seconds_warming=3.5, seconds_saved=60.0, bytes_stored=1200)
    monkeypatch.setattr("megacache.integrations._receipts.receipt", lambda: now)
    for before in (Receipt(), inherited):
        Receipts("store").write(before, None)
    found = [json.loads(path.read_text()) for path in (tmp_path / "store.receipts").rglob("*.json")]
    told = sorted((one["hit"], one["seconds_warming"], one["seconds_saved"], one["bytes_stored"]) for one in found)
    assert told == [(1, 0.5, 10.0, 200), (3, 3.5, 60.0, 1200)]


def test_gc_deletes_old_receipts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The command `gc` shows how many receipts are older than 30 days, and deletes them."""
    store = tmp_path / "store"
    monkeypatch.setenv("MEGACACHE_URL", str(store))
    StoreReceipts().leave(Receipt(), None, at_end=None)
    StoreReceipts().leave(Receipt(), None, at_end=None)
    old, _ = (tmp_path / "store.receipts").rglob("*.json")
    os.utime(old, (0, 0))
    shown = run("gc", store, "--dry-run").stderr
    assert "1 receipt older than 30 days" in shown
    assert old.exists()
    assert document("gc", store, "--yes")["receipts"] == 1
    assert len(list((tmp_path / "store.receipts").rglob("*.json"))) == 1


def test_gc_without_access_to_receipts(tmp_path: Path) -> None:
    """Whoever may not list what lies beside the cache can delete what is of no use in it, and is told."""
    upload(open_store(str(tmp_path / "store")), bundle(artifacts(1)))
    faulty_disk.register()
    faulty_disk.RULES.fail(r"^LIST .*\.receipts", faulty_disk.fail(errno.EACCES))
    try:
        done = run("gc", f"faulty://{tmp_path / 'store'}", "--older-than", "0s", "--grace", "0", "--yes")
    finally:
        faulty_disk.RULES.heal()
    assert "receipts were not deleted: " in done.stderr
    assert list((tmp_path / "store").rglob("*.zst")) == []
