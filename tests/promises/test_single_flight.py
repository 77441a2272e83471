"""Real workers that start together with nothing published: one compiles, also if the one before was killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from megacache._catalog import Inventory
from megacache._runtime import Deadline
from megacache._store import Store
from tests.kit.processes import REPOSITORY, TIMEOUT, Processes, Running, step
from tests.kit.servers import Server

WAIT = 200
"""Seconds; far more than the model takes."""


@pytest.fixture
def there(moto_s3: Server, name: str) -> dict[str, Any]:
    """Name an empty cache on S3."""
    return {"url": f"{moto_s3.url}/{name}", "storage_options": dict(moto_s3.storage_options)}


def leases(there: dict[str, Any]) -> tuple[object, ...]:
    """List the leases of the cache."""
    inventory = Inventory.of(Store.open(**there, deadline=Deadline.after(30)))
    return tuple(lease for holding in inventory.holdings for lease in holding.leases)


def await_lease(there: dict[str, Any], holder: Running) -> None:
    """Wait until a worker has taken the lease."""
    deadline = time.monotonic() + TIMEOUT
    while not leases(there):
        assert holder.process.poll() is None, holder.stderr
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_one_of_four_compiles(processes: Processes, there: dict[str, Any]) -> None:
    """One misses and publishes; three load it, miss nothing, and have nothing to publish."""
    workers = [
        processes.start(
            step("warm", wait=WAIT, **there), step("run", model="doubling"), step("publish", timeout=60, **there)
        )
        for _ in range(4)
    ]
    answers = [worker.answers() for worker in workers]
    assert sorted(warmed["status"] for warmed, _, _ in answers) == ["loaded", "loaded", "loaded", "miss"]
    assert sorted(ran["fx_miss"] for _, ran, _ in answers) == [0, 0, 0, 1]
    assert sorted(published["status"] for *_, published in answers) == ["published", *["unchanged"] * 3]
    assert not leases(there)


def test_killed_holder_is_followed(processes: Processes, there: dict[str, Any], tmp_path: Path) -> None:
    """`kill -9` of the one that compiles leaves its lease; another worker compiles, and the last one loads."""
    holder = processes.start(step("warm", wait=WAIT, **there), step("meet", path=str(tmp_path / "gate"), others=2))
    await_lease(there, holder)
    holder.process.kill()
    holder.exit_status()
    workers = [
        processes.start(step("warm", wait=WAIT, **there), step("run", model="doubling"), step("publish", **there))
        for _ in range(2)
    ]
    answers = [worker.answers() for worker in workers]
    assert sorted(warmed["status"] for warmed, _, _ in answers) == ["loaded", "miss"]
    assert sorted(ran["fx_miss"] for _, ran, _ in answers) == [0, 1]
    assert not leases(there)


def test_holder_that_ends_without_a_publication_lets_the_next_go_on(
    processes: Processes, there: dict[str, Any]
) -> None:
    """The lease is gone with the process, and does not have to run out."""
    processes.run(step("warm", wait=WAIT, **there))
    assert not leases(there)


def test_children_of_a_holder_wait_for_one_of_them(processes: Processes, there: dict[str, Any]) -> None:
    """A parent that waits for its children holds none of them up: one takes its place, and the others load."""
    options = {"wait": WAIT, **there}
    warmed, forked = processes.run(step("warm", **options), step("warm_in_forks", count=3, model="doubling", **options))
    assert "this process compiles for the others" in warmed["reason"]
    assert sorted(child["status"] for child in forked["children"]) == ["loaded", "loaded", "miss"]
    assert not leases(there)


PROGRAM = """
import torch
from tests.kit import models
models.doubling()
from torch._dynamo.utils import counters
print("misses", counters["inductor"]["fxgraph_cache_miss"])
"""


def test_programs_below_run_wait_for_one_another(processes: Processes, there: dict[str, Any]) -> None:
    """`megacache run --wait` is all that it takes: of three unchanged programs, one compiles."""
    options = there["storage_options"]
    variables = {
        **os.environ,
        "AWS_ENDPOINT_URL": options["endpoint_url"],
        "AWS_ACCESS_KEY_ID": options["key"],
        "AWS_SECRET_ACCESS_KEY": options["secret"],
    }
    command = [sys.executable, "-m", "megacache", "run", "--wait", str(WAIT), "--publish-after", "1", "--quiet"]
    programs = [
        subprocess.Popen(
            [*command, there["url"], "--", sys.executable, "-c", PROGRAM],
            cwd=REPOSITORY,
            env={**variables, "TORCHINDUCTOR_CACHE_DIR": str(processes.new_folder())},
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(3)
    ]
    try:
        told = sorted(program.communicate(timeout=TIMEOUT)[0].splitlines()[-1] for program in programs)
    finally:
        for program in programs:
            program.send_signal(signal.SIGKILL)
    assert told == ["misses 0", "misses 0", "misses 1"]
    assert not leases(there)
