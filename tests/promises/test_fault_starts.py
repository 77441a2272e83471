"""Whole starts under a fault: the real compiler, in a process of its own, goes on cold and computes what is right."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from megacache._catalog import Inventory, Selected, Transfer
from tests.kit.builders import open_store
from tests.kit.disks import fill, read_only, small_disk
from tests.kit.faults import FAULTS, Fault
from tests.kit.places import GRACE, Place, check_told
from tests.kit.processes import Answer, Processes, step

DISK = 16 << 20
TIMEOUT = 6.0
_LATE = replace(FAULTS["hang"], times=2, cause="not done within 6 s while downloading")
STARTS = (
    ("s3", "chunk", _LATE),
    pytest.param(("gs", "chunk", _LATE), marks=pytest.mark.nightly),
    ("s3", "chunk", replace(FAULTS["flipped"], times=2)),
    ("gs", "list", replace(FAULTS["refused"], times=1)),
)
"""What fails, and at which step, for as long as the warm start takes."""


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> tuple[str, Answer]:
    """Publish one real bundle to a folder."""
    url = str(tmp_path_factory.mktemp("cold") / "store")
    processes = Processes(tmp_path_factory.mktemp("processes"), probes)
    ran, published = processes.run(step("run", model="doubling"), step("publish", url=url))
    assert published["status"] == "published"
    return url, ran


@pytest.fixture(scope="module")
def remote(cold: tuple[str, Answer], stores: Mapping[str, Place]) -> Iterator[Mapping[str, Place]]:
    """Copy it to the servers."""
    source = open_store(cold[0])
    selected = [Selected(holding=one, bundles=tuple(one.visible)) for one in Inventory.of(source).holdings]
    found = {kind: stores[kind].under("real") for kind in ("s3", "gs")}
    for place in found.values():
        assert not Transfer(source, place.open(), lambda _: None).run(selected).failed
    yield found
    for place in found.values():
        place.heal()


@pytest.mark.parametrize("case", STARTS, ids=lambda case: f"{case[0]}-{case[1]}-{case[2].cause}")
def test_start_goes_on_cold(
    case: tuple[str, str, Fault], remote: Mapping[str, Place], cold: tuple[str, Answer], processes: Processes
) -> None:
    """A warm start that fails says why within its deadline; the model compiles, computes the same, and is published."""
    kind, where, fault = case
    place = remote[kind]
    place.fail(where, fault)
    options = {name: value for name, value in place.storage_options.items() if name != "session"}
    there = {"url": place.url, "storage_options": options}
    warmed, ran, published = processes.run(
        step("warm", timeout=TIMEOUT, **there), step("run", model="doubling"), step("publish", **there)
    )
    place.heal()
    assert (warmed["status"], warmed["true"]) == ("unavailable", False)
    check_told(fault, place, warmed["reason"])
    assert warmed["seconds"]["total"] - warmed["seconds"]["torch"] < TIMEOUT + GRACE
    assert (ran["fx_miss"], ran["sum"]) == (1, cold[1]["sum"])
    assert published["true"], published["reason"]


def test_cache_folder_is_full(cold: tuple[str, Answer], processes: Processes, tmp_path: Path) -> None:
    """Where PyTorch's own folder is full a warm start is unavailable; with space the next one is warm and right."""
    with small_disk(tmp_path / "disk", DISK) as disk:
        filler = fill(disk)
        (full,) = processes.run(step("warm", url=cold[0]), folder=disk)
        filler.unlink()
        warmed, ran = processes.run(step("warm", url=cold[0]), step("run", model="doubling"), folder=disk)
    assert (full["status"], full["error"]) == ("unavailable", "CompilerError")
    assert "No space left on device" in full["reason"]
    assert (warmed["status"], ran["fx_miss"], ran["digest"]) == ("loaded", 0, cold[1]["digest"])


def test_cache_folder_may_not_be_written_to(cold: tuple[str, Answer], processes: Processes, tmp_path: Path) -> None:
    """Where nobody may write to PyTorch's folder a warm start says so before it downloads anything."""
    folder = tmp_path / "cache"
    folder.mkdir()
    with read_only(folder):
        (warmed,) = processes.run(step("warm", url=cold[0]), folder=folder)
    assert (warmed["status"], warmed["error"]) == ("unavailable", "CompilerError")
    assert str(folder) in warmed["reason"]
    assert warmed["bytes_stored"] == 0
