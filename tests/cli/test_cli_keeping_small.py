"""The commands that keep a store small: `compact`, `gc` and `pin`."""

import os
import re
from pathlib import Path

import pytest

from megacache._catalog import Catalog, Inventory, StartReceipt, leave_receipt, receipts_beside
from megacache._cli.quantities import size, span
from megacache._store import Store
from megacache.errors import AccessError
from tests.kit.builders import artifact, bundle, environment, open_store, prefix_of, upload
from tests.kit.command import document, on_terminal, run

GPU = environment(device_type="cuda", device_name="NVIDIA H100 80GB HBM3")
PLACE = prefix_of(environment())
ONE, TWO, THREE = (bundle([artifact(key)]) for key in "abc")
IDS = sorted(one.manifest.bundle for one in (ONE, TWO, THREE))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Open a store on disk with three bundles of one environment, and one of another."""
    store = open_store(str(tmp_path / "store"))
    upload(store, ONE, TWO, THREE, bundle([artifact("d")], here=GPU))
    return store


def visible(store: Store) -> list[str]:
    """Name what readers of the first environment see."""
    return sorted(*(one.visible for one in Inventory.of(store).holdings if one.prefix == PLACE))


def test_compact_shows_and_merges(store: Store) -> None:
    """The plan is shown, and with --yes the bundles of each environment become one."""
    planned = run("compact", store.url, "--dry-run")
    assert PLACE.path in planned.stdout
    assert "nothing of its kind to merge it with" in planned.stderr
    assert visible(store) == IDS
    done = run("compact", store.url, "--yes")
    (merged,) = visible(store)
    assert f"bundle {merged} supersedes 3 bundles" in done.stderr
    assert f"megacache quarantine {store.url} BUNDLE" in done.stderr
    assert "supersedes" not in run("compact", store.url, "--yes").stderr


def test_compact_tells_all_as_json(store: Store) -> None:
    """The document has the plan, what stays, and what was merged into what."""
    planned = document("compact", store.url, "--dry-run", "--device", PLACE.device)
    (view,) = planned["environments"]
    assert (planned["dry_run"], sorted(view["planned"][0]), view["merged"], view["staying"]) == (True, IDS, {}, [])
    (view,) = document("compact", store.url, "--yes", "--device", PLACE.device)["environments"]
    ((merged, sources),) = view["merged"].items()
    assert (visible(store), sorted(sources), view["failed"]) == ([merged], IDS, [])


def test_compact_asks_first(store: Store) -> None:
    """Without a terminal and --yes nothing is merged; on a terminal it asks."""
    done = run("compact", store.url, code=2)
    assert "nothing was merged: there is no terminal to ask on; give --yes" in done.stderr
    code, shown = on_terminal("compact", store.url, typed=b"n\n")
    assert (code, visible(store)) == (1, IDS)
    assert "nothing was merged" in shown


def test_compact_leaves_what_is_damaged(store: Store) -> None:
    """A damaged bundle is named, the others are merged, and the exit code says so."""
    damaged = PLACE.chunk(TWO.chunks[0].ref.digest)
    store.delete(damaged)
    store.create(damaged, b"x" * len(TWO.chunks[0].stored))
    done = run("compact", store.url, "--yes", code=4)
    assert f"not merged: {TWO.manifest.bundle}: chunk" in done.stderr
    assert len(visible(store)) == 2


def test_compact_of_a_signed_store_needs_a_key(tmp_path: Path, store: Store) -> None:
    """What is signed is merged only with a key, and the result verifies."""
    key = tmp_path / "key.pem"
    run("keygen", key)
    run("sign", store.url, "--key", key)
    assert "no key signs what it would be merged into; give --key" in run("compact", store.url, "--yes", code=2).stderr
    run("compact", store.url, "--yes", "--key", key, "--trusted-keys", f"{key}.pub")
    (merged,) = visible(store)
    run("verify", store.url, "--trusted-keys", f"{key}.pub")
    assert merged not in IDS


def test_quarantine_names_the_merged_bundle(store: Store) -> None:
    """Whoever withdraws a bundle that was merged is told which bundle still has its content in service."""
    assert document("quarantine", store.url, THREE.manifest.bundle)["also_in"] == []
    run("quarantine", store.url, THREE.manifest.bundle, "--lift")
    run("compact", store.url, "--yes")
    (merged,) = visible(store)
    done = run("quarantine", store.url, ONE.manifest.bundle)
    assert f"bundle {merged} holds the same and is in service: quarantine it, too" in done.stderr
    assert document("quarantine", store.url, ONE.manifest.bundle)["also_in"] == [merged]
    run("quarantine", store.url, merged)
    assert document("quarantine", store.url, ONE.manifest.bundle)["also_in"] == []


def test_gc_deletes_what_was_superseded(store: Store) -> None:
    """What was merged is left alone for a day; without a grace it goes."""
    run("compact", store.url, "--yes")
    waiting = document("gc", store.url, "--yes", "--device", PLACE.device)
    assert waiting["environments"] == [
        {
            "device": PLACE.device,
            "fingerprint": PLACE.fingerprint,
            "withdrawn": [],
            "bundles": [],
            "chunks": 0,
            "objects": 0,
            "bytes": 0,
            "chunks_kept": 0,
            "waiting": 3,
            "age_unknown": False,
        }
    ]
    planned = run("gc", store.url, "--grace", "0", "--dry-run")
    assert re.search(rf"{PLACE.path} +0 +0 +3 +3 +9 ", planned.stdout)
    done = run("gc", store.url, "--grace", "0", "--yes")
    assert f"9 objects deleted from {store.url}" in done.stderr
    run("verify", store.url)
    assert len(store.list()) == 4


def test_gc_that_may_not_delete_receipts_gets_the_rest_done(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """It says so, and ends well; what it may delete is gone."""
    told = StartReceipt(
        status="loaded",
        torch_version="2",
        hit=1,
        missed=0,
        bypassed=0,
        seconds_warming=1,
        seconds_saved=1,
        bytes_stored=1,
    )
    receipts = receipts_beside(store)
    leave_receipt(receipts, PLACE, "a" * 32, 0, told)
    for path in Path(f"{store.url}.receipts").rglob("*.json"):
        os.utime(path, (0, 0))
    run("compact", store.url, "--yes")
    delete = Store.delete

    def refuse(self: Store, key: str) -> None:
        if self.url == receipts.url:
            raise AccessError("forbidden")
        delete(self, key)

    monkeypatch.setattr(Store, "delete", refuse)
    done = run("gc", store.url, "--grace", "0", "--yes")
    assert "receipts were not deleted: forbidden" in done.stderr
    assert f"9 objects deleted from {store.url}" in done.stderr
    assert len(receipts.list()) == 1


def test_gc_asks_first(store: Store) -> None:
    """Without a terminal and --yes nothing is deleted; where nothing is to be done, nothing is asked."""
    done = run("gc", store.url, "--keep", "1", "--max-size", "0", code=2)
    assert "nothing was deleted: there is no terminal to ask on; give --yes" in done.stderr
    run("gc", store.url)
    code, shown = on_terminal("gc", store.url, "--older-than", "0", typed=b"n\n")
    assert (code, visible(store)) == (1, IDS)
    assert "and withdraw 4 bundles? [y/N]" in shown


def test_gc_looks_at_each_environment_in_its_turn(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is pinned while another environment is being cleared stays."""
    (other,) = Catalog.of(store, GPU).list().visible
    places = {prefix_of(GPU): other, PLACE: IDS[0]}
    for prefix, name in places.items():
        Catalog(store, prefix).mark(name, "superseded")
    delete = Store.delete

    def pin_the_others(one: Store, key: str) -> None:
        for prefix, name in places.items():
            if not key.startswith(prefix.path):
                Catalog(store, prefix).mark(name, "pinned")
        delete(one, key)

    monkeypatch.setattr(Store, "delete", pin_the_others)
    done = document("gc", store.url, "--grace", "0", "--yes")
    assert sorted(len(view["bundles"]) for view in done["environments"]) == [0, 1]
    left = [name for prefix, name in places.items() if name in Catalog(store, prefix).list().visible]
    assert len(left) == 1


def test_gc_withdraws_environments(store: Store) -> None:
    """An environment that is not wanted is hidden at once, and told of."""
    view = document("gc", store.url, "--yes", "--older-than", "0", "--device", PLACE.device)["environments"][0]
    assert (sorted(view["withdrawn"]), visible(store)) == (IDS, [])
    assert len(store.list()) == 11


def test_gc_says_how_to_take_a_withdrawal_back(store: Store) -> None:
    """Who withdrew the wrong environment has the grace period to change that, and is told how."""
    told = run("gc", store.url, "--yes", "--older-than", "0", "--device", PLACE.device).stderr
    assert f"{len(IDS)} bundles withdrawn: " in told
    assert "`megacache pin` gives one back" in told


def test_pinned_bundle_is_neither_merged_nor_deleted(store: Store) -> None:
    """A pin keeps a bundle as it is, until it is taken away."""
    assert document("pin", store.url, ONE.manifest.bundle) == {
        "format": 1,
        "command": "pin",
        "url": store.url,
        "pinned": True,
        "bundles": [
            {
                "device": PLACE.device,
                "fingerprint": PLACE.fingerprint,
                "bundle": ONE.manifest.bundle,
                "changed": True,
            }
        ],
    }
    run("compact", store.url, "--yes")
    run("gc", store.url, "--yes", "--grace", "0", "--older-than", "0")
    assert visible(store) == [ONE.manifest.bundle]
    assert "is not pinned" in run("pin", store.url, ONE.manifest.bundle, "--remove").stderr
    run("gc", store.url, "--yes", "--grace", "0", "--older-than", "0")
    assert store.list() == ()


def test_environment_is_pinned_and_let_go(store: Store) -> None:
    """All that is visible there is pinned; taking the pins away finds all of them."""
    pinned = document("pin", store.url, "--device", PLACE.device)
    assert [view["bundle"] for view in pinned["bundles"]] == IDS
    assert not any(view["changed"] for view in document("pin", store.url, "--device", PLACE.device)["bundles"])
    assert "pinned" in run("ls", store.url, "--bundles", "--no-here").stdout
    removed = document("pin", store.url, "--device", PLACE.device, "--remove")
    assert [view["bundle"] for view in removed["bundles"]] == IDS
    assert document("pin", store.url, "--device", PLACE.device, "--remove")["bundles"] == []


def test_pin_gives_a_superseded_bundle_back(store: Store) -> None:
    """What was withdrawn by mistake is in service again, as long as it is there."""
    run("gc", store.url, "--yes", "--older-than", "0")
    assert visible(store) == []
    run("pin", store.url, TWO.manifest.bundle)
    assert visible(store) == [TWO.manifest.bundle]
    run("pin", store.url, TWO.manifest.bundle, "--remove")
    assert visible(store) == [TWO.manifest.bundle]  # readers that have just listed it have the whole grace


def test_pin_needs_something_named(store: Store) -> None:
    """A whole cache is not pinned by mistake."""
    assert "nothing was named" in run("pin", store.url, code=2).stderr


def test_pin_of_what_is_being_deleted_is_told(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever pins a bundle in the moment in which it is deleted is not told that it is kept."""
    mark = Catalog.mark

    def late(catalog: Catalog, bundle: str, name: str) -> bool:
        store.delete(PLACE.manifest(bundle))
        return mark(catalog, bundle, name)

    monkeypatch.setattr(Catalog, "mark", late)
    assert "has just been deleted" in run("pin", store.url, ONE.manifest.bundle, code=3).stderr


@pytest.mark.parametrize(
    ("option", "value"),
    [("--grace", "24"), ("--grace", "-1h"), ("--older-than", "90 days"), ("--max-size", "50GiB"), ("--keep", "0")],
)
def test_quantities_need_units(store: Store, option: str, value: str) -> None:
    """A number without a unit, or with another, is refused, with what would do."""
    assert value in run("gc", store.url, option, value, code=2).output


@pytest.mark.parametrize(("grace", "code"), [("30min", 2), ("1s", 2), ("0h", 0), ("3h", 0)])
def test_grace_that_readers_and_writers_may_outlast_is_refused(store: Store, grace: str, code: int) -> None:
    """Publications and clocks need three hours; only with no grace at all is nobody waited for."""
    done = run("gc", store.url, "--grace", grace, code=code)
    assert ("give 3h or more, or 0" in " ".join(done.stderr.replace("│", " ").split())) == bool(code)


def test_units_are_understood() -> None:
    """Spans are in seconds, sizes in bytes."""
    assert [span(text) for text in ("0", "30s", "30min", "1.5h", "90d")] == [0, 30, 1_800, 5_400, 7_776_000]
    assert [size(text) for text in ("0", "5B", "1.5KB", "2MB", "50GB", "1TB")] == [
        0,
        5,
        1_500,
        2 * 10**6,
        50 * 10**9,
        10**12,
    ]
