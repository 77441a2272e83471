"""A container that has lost its disk when it died learns from the store what it may have died of."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from megacache._cache.crash_guard.guard import guard_beside
from tests.kit.builders import artifact, bundle, open_store, upload
from tests.kit.poison import poisoned
from tests.kit.processes import REPOSITORY, Processes, step
from tests.kit.torchless import Compiler

STEPS = json.dumps([step("run", model="doubling")])


def start(store: Path, folder: Path, disk: Path, instance: str | None) -> "subprocess.CompletedProcess[str]":
    """Start a program on an empty disk, as the only process of a container, without a line of code in it."""
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(disk, folder)
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(folder), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    if instance is not None:
        variables["MEGACACHE_INSTANCE"] = instance
    command = [
        sys.executable,
        "-m",
        "megacache",
        "run",
        str(store),
        "--",
        sys.executable,
        "-m",
        "tests.kit.child",
        STEPS,
    ]
    return subprocess.run(
        command,
        cwd=REPOSITORY,
        env={**os.environ, **variables},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )


def test_container_that_has_a_name_dies_twice(processes: Processes, tmp_path: Path) -> None:
    """The third start leaves out what two had loaded, says so, compiles and publishes; without a name it dies, too."""
    store = tmp_path / "store"
    processes.run(step("run", model="doubling"), step("publish", url=str(store)))
    deadly = poisoned(store, signal.SIGSEGV)
    disk, folder = processes.new_folder(), tmp_path / "compiler"
    for instance in ("pod-0", "pod-0", None):
        assert start(store, folder, disk, instance).returncode == -signal.SIGSEGV
    assert len(list(store.glob("*/*/bundles/*.started"))) == 2
    recovered, again = (start(store, folder, disk, "pod-0") for _ in range(2))
    assert (recovered.returncode, again.returncode) == (0, 0), recovered.stderr + again.stderr
    assert f"bundle {deadly} was passed by: a process that had loaded it died" in recovered.stderr
    (missed,), (hit,) = (json.loads(done.stdout.splitlines()[-1]) for done in (recovered, again))
    assert (missed["fx_miss"], hit["fx_hit"]) == (1, 1)
    assert len(list(store.glob("*/*/bundles/*.started"))) == 2


@pytest.mark.parametrize(
    ("variables", "markers"),
    [
        ({"MEGACACHE_INSTANCE": "pod-0"}, 1),
        ({"MEGACACHE_INSTANCE": " "}, 0),
        ({"MEGACACHE_INSTANCE": "pod-0", "MEGACACHE_READ_ONLY": "1"}, 0),
    ],
)
def test_markers_are_in_the_store_where_that_is_wanted(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variables: dict[str, str], markers: int
) -> None:
    """Only an instance that has a name, and may write, puts one there when it loads."""
    store = open_store((tmp_path / "store").as_uri())
    upload(store, bundle([artifact()]))
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert compiler.warm(store.url, {}, 30)
    guard = guard_beside(str(compiler.folder))
    guard.arm()
    assert sum(entry.key.endswith(".started") for entry in store.list()) == markers
    guard.disarm()
    assert not any(entry.key.endswith(".started") for entry in store.list())


def test_later_warm_start_reads_the_markers_again(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However soon the first one's time was over, the second leaves out the same, and says so."""
    store, one = open_store((tmp_path / "store").as_uri()), bundle([artifact()])
    upload(store, one)
    monkeypatch.setenv("MEGACACHE_INSTANCE", "pod-0")
    for _ in range(2):
        assert compiler.warm(store.url, {}, 30)
        guard_beside(str(compiler.folder)).after_fork()
        shutil.rmtree(compiler.folder)
        monkeypatch.setattr("megacache._cache.crash_guard.guard._guards", {})
    assert "a process that had loaded it died" in compiler.warm(store.url, {}, 3).reason
    time.sleep(3)
    assert "a process that had loaded it died" in compiler.warm(store.url, {}, 30).reason
