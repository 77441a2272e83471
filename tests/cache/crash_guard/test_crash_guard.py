"""A bundle that kills the processes that load it kills two, and not for ever."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest
from torch._dynamo.utils import dynamo_timed

from megacache import _compiler
from megacache._cache.crash_guard import CrashGuard, Markers
from megacache._cache.crash_guard.markers import Suspect
from megacache._compiler import compilations
from tests.kit.builders import artifact, bundle
from tests.kit.poison import PICKLED, poisoned
from tests.kit.processes import JOB, REPOSITORY, Processes, step

HOLDER = """
import os, sys
from megacache._cache.crash_guard import guard_beside
from tests.kit.builders import artifact, bundle
guard = guard_beside(sys.argv[1])
guard.look_back()
guard.add([bundle([artifact("a")]).manifest])
guard.arm()
print("armed", flush=True)
{then}
"""
ONE, OTHER = (bundle([artifact(key)]).manifest for key in "ab")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Name a folder for markers."""
    return tmp_path / "megacache" / "starts"


def suspects(folder: Path) -> Mapping[str, Suspect]:
    """Give what the markers in a folder accuse."""
    return Markers(folder).deaths().suspects


def hold(folder: Path, then: str) -> "subprocess.Popen[str]":
    """Start a process that puts a marker up, and goes on as it is told."""
    popen = subprocess.Popen(
        [sys.executable, "-c", HOLDER.format(then=then), str(folder.parents[1])],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert popen.stdout is not None
    assert popen.stdout.readline() == "armed\n"
    return popen


@pytest.mark.parametrize("number", [signal.SIGABRT, signal.SIGKILL])
def test_second_process_that_dies_accuses(folder: Path, number: signal.Signals) -> None:
    """While a process lives its bundles are fine; nobody tells a kill from a crash, and the second death counts."""
    for accused in ({}, {ONE.bundle: Suspect.of(ONE)}):
        popen = hold(folder, "input()")
        assert suspects(folder) == {}
        popen.send_signal(number)
        popen.communicate()
        assert suspects(folder) == accused


def test_process_that_loads_more_may_have_died_of_all(folder: Path) -> None:
    """What comes while its marker is up is suspected as well, once that happens a second time."""
    for _ in range(2):
        hold(folder, "guard.add([bundle([artifact('b')]).manifest]); guard.arm(); os.abort()").communicate()
    assert suspects(folder).keys() == {ONE.bundle, OTHER.bundle}


def test_ranks_that_are_stopped_together_accuse_nobody(folder: Path) -> None:
    """A restart that ends several processes in their first compilation is one death, whoever arms late."""
    again = "input(); guard.disarm(); guard.arm(); print('again', flush=True); input()"
    first, late = (hold(folder, again) for _ in range(2))
    first.terminate()
    first.communicate()
    assert late.stdin is not None
    assert late.stdout is not None
    late.stdin.write("\n")
    late.stdin.flush()
    assert late.stdout.readline() == "again\n"
    late.terminate()
    late.communicate()
    assert suspects(folder) == {}


@pytest.mark.parametrize("then", ["guard.disarm()", "guard.disarm(); os.abort()"])
def test_process_that_survived_leaves_nothing(folder: Path, then: str) -> None:
    """After the marker is down no death counts any more."""
    hold(folder, then).communicate()
    assert suspects(folder) == {}
    assert list(folder.iterdir()) == []


def test_child_does_not_keep_its_parents_marker(folder: Path) -> None:
    """A forked child that lives on does not hide the death of its parent."""
    hold(folder, "os.abort()").communicate()
    popen = hold(folder, "os.fork() and os.abort(); input()")
    assert popen.wait(60) == -signal.SIGABRT
    deadline = time.monotonic() + 30
    while suspects(folder).keys() != {ONE.bundle}:  # the child may not have come to its first step yet
        assert time.monotonic() < deadline
        time.sleep(0.01)
    popen.communicate("\n")


def test_marker_comes_down_some_time_after_a_compilation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A compilation that ends starts the clock, another one that begins stops it."""
    monkeypatch.setattr("megacache._cache.crash_guard.guard.SURVIVAL_SECONDS", 0.05)
    guard = CrashGuard(folder)
    guard.add([ONE])
    assert list(folder.glob("*.json")) == []
    guard.arm()
    guard.disarm_later()
    guard.arm()
    time.sleep(0.2)
    assert len(list(folder.glob("*.json"))) == 1
    guard.disarm_later()
    deadline = time.monotonic() + 30
    while list(folder.glob("*.json")):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_marker_outlives_a_load_within_a_compilation(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is loaded while a compilation is under way may be used in it: its marker stays up until that has ended."""
    monkeypatch.setattr(compilations._compilations, "_calls", [])
    guard, seen = CrashGuard(folder), []
    guard.add([ONE])

    def load() -> None:
        with guard.armed():
            pass
        seen.append(len(list(folder.glob("*.json"))))

    _compiler.on_compilations(load, lambda: None)
    with dynamo_timed("backend_compile"):
        seen.append(len(list(folder.glob("*.json"))))
    load()
    assert seen == [1, 1, 0]


def test_folder_that_cannot_be_written_is_no_fault(tmp_path: Path) -> None:
    """Where no marker can lie the start goes on without one."""
    (tmp_path / "file").touch()
    guard = CrashGuard(tmp_path / "file" / "starts")
    guard.add([ONE])
    guard.arm()
    guard.disarm()
    assert guard.look_back().suspects == {}


def test_deadly_bundle_kills_twice(processes: Processes, tmp_path: Path) -> None:
    """Two processes die of it; the next one leaves it out, says how to take it from everyone, and compiles."""
    store = tmp_path / "store"
    processes.run(step("run", model="doubling"), step("publish", url=str(store)))
    deadly = poisoned(store, signal.SIGILL)
    folder = processes.new_folder()
    steps = step("warm", url=str(store)), step("run", model="doubling")
    for _ in range(2):
        assert processes.start(*steps, folder=folder).exit_status() == -signal.SIGILL
    warmed, ran, published = processes.run(*steps, step("publish", url=str(store)), folder=folder)
    assert (warmed["status"], ran["fx_miss"]) == ("miss", 1)
    assert f"bundle {deadly} was left out: two processes in a row ended" in warmed["reason"]
    assert f"`megacache quarantine {store} {deadly}`" in warmed["reason"]
    assert published["status"] == "published"
    warmed, ran = processes.run(*steps, folder=folder)
    assert (warmed["status"], warmed["bundles"], ran["fx_hit"]) == ("loaded", [published["bundle"]], 1)


@pytest.mark.parametrize(
    "kind",
    ["inductor", *(pytest.param(kind, marks=pytest.mark.nightly) for kind in sorted(set(PICKLED) - {"inductor"}))],
)
def test_deadly_artifact_kills_twice(processes: Processes, tmp_path: Path, kind: str) -> None:
    """Of whatever kind it is that PyTorch unpickles, it is taken out of the local cache, too."""
    store, folder = tmp_path / "store", processes.new_folder()
    processes.run(JOB, step("run", model="doubling"), step("publish", url=str(store)))
    poisoned(store, signal.SIGSEGV, frozenset({kind}))
    steps = JOB, step("warm", url=str(store)), step("run", model="doubling")
    for _ in range(2):
        assert processes.start(*steps, folder=folder).exit_status() == -signal.SIGSEGV
    _, warmed, ran = processes.run(*steps, folder=folder)
    assert (warmed["status"], ran["fx_miss"]) == ("miss", 1)


def test_deadly_bundle_kills_twice_without_a_line_of_code(processes: Processes, tmp_path: Path) -> None:
    """Where the warm start comes with the first compilation, that one is marked as well."""
    store, folder = tmp_path / "store", processes.new_folder()
    processes.run(step("run", model="doubling"), step("publish", url=str(store)))
    poisoned(store, signal.SIGSEGV)
    command = [sys.executable, "-m", "megacache", "run", str(store), "--", sys.executable, "-m", "tests.kit.child"]
    steps = json.dumps([step("run", model="doubling")])

    def start() -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            [*command, steps],
            cwd=REPOSITORY,
            env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(folder), "TORCHINDUCTOR_COMPILE_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    assert [start().returncode for _ in range(2)] == [-signal.SIGSEGV] * 2
    again = start()
    assert again.returncode == 0, again.stderr
    assert "was left out: two processes in a row ended" in again.stderr


def test_start_that_goes_well_leaves_no_marker(processes: Processes, tmp_path: Path) -> None:
    """A process that loads, runs and ends leaves nothing beside the cache."""
    url, folder = str(tmp_path / "store"), processes.new_folder()
    processes.run(step("run", model="doubling"), step("publish", url=url))
    warmed, ran = processes.run(step("warm", url=url), step("run", model="doubling"), folder=folder)
    assert (warmed["status"], ran["fx_hit"]) == ("loaded", 1)
    assert list((folder / "megacache" / "starts").iterdir()) == []
