"""Real processes with a near folder before S3: each object leaves S3 once, whatever happens to the folder."""

import json
import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megacache._catalog import Inventory, verify
from megacache._runtime import Deadline
from megacache._store import Store
from tests.kit.command import document
from tests.kit.damage import flip_bit, truncate
from tests.kit.processes import REPOSITORY, TIMEOUT, Processes, step
from tests.kit.servers import Server
from tests.kit.servers.moto import MotoServer

MODEL = step("run", model="doubling")


@pytest.fixture
def cache(moto_s3: Server, name: str, processes: Processes) -> dict[str, Any]:
    """Publish a model on S3."""
    there = {"url": f"{moto_s3.url}/{name}", "storage_options": dict(moto_s3.storage_options)}
    _, published = processes.run(MODEL, step("publish", **there))
    assert published["status"] == "published"
    return there


@pytest.fixture
def near(tmp_path: Path) -> Path:
    """Name a folder of the node, with a blank in its name."""
    return tmp_path / "near place"


@pytest.fixture
def there(cache: dict[str, Any], near: Path) -> dict[str, Any]:
    """Name both places."""
    return {**cache, "url": f"{near} {cache['url']}"}


def requests(server: MotoServer) -> Counter[str]:
    """Count what was asked of S3, by the kind of request."""
    kinds = {".zst": "chunk", ".msgpack": "manifest", "prefix=": "list"}
    return Counter(
        next((kind for mark, kind in kinds.items() if mark in line), line)
        for line in server.requests()
        if not line.startswith("HEAD")
    )


def faults(folder: Path) -> list[str]:
    """Verify all that lies in a store."""
    store = Store.open(str(folder), storage_options=None, deadline=Deadline.after(TIMEOUT))
    found = [verify(store, one, lambda _: None) for one in Inventory.of(store).holdings]
    return [str(fault) for one in found for verdict in one.verdicts for fault in verdict.faults]


def start(processes: Processes, there: dict[str, Any]) -> dict[str, Any]:
    """Start warm: nothing is compiled."""
    warmed, ran = processes.run(step("warm", **there), MODEL)
    assert (warmed["status"], ran["fx_miss"]) == ("loaded", 0)
    return warmed


def test_second_process_asks_for_one_listing(
    processes: Processes, there: dict[str, Any], near: Path, moto_server: MotoServer
) -> None:
    """The copy of the first one is whole, serves alone, and is the source that is told."""
    first = start(processes, there)
    assert list(first["sources"]) == [there["url"].split()[-1]]
    assert faults(near) == []
    moto_server.forget()
    second = start(processes, there)
    assert requests(moto_server) == {"list": 1}
    assert (list(second["sources"]), second["warnings"]) == ([str(near)], [])
    start(processes, {"url": str(near)})


@pytest.fixture
def keeping(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Let this node keep chunks."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    monkeypatch.delenv("MEGACACHE_NODE_MAX_BYTES")


@pytest.mark.usefixtures("keeping")
def test_processes_of_a_node_download_each_chunk_once(
    processes: Processes, there: dict[str, Any], near: Path, moto_server: MotoServer
) -> None:
    """Copies are made of what the node has kept, also if several processes start at once."""
    moto_server.forget()
    together = step("meet", path=str(near.with_name("gate")), others=3)
    for worker in [processes.start(together, step("warm", **there), MODEL) for _ in range(3)]:
        _, warmed, ran = worker.answers()
        assert (warmed["status"], ran["fx_miss"]) == ("loaded", 0)
    chunks = Counter(line for line in moto_server.requests() if line.startswith("GET ") and ".zst" in line)
    assert set(chunks.values()) == {1}
    assert faults(near) == []
    assert list(start(processes, there)["sources"]) == [str(near)]


@pytest.mark.parametrize(
    "damage", [flip_bit, *(pytest.param(one, marks=pytest.mark.nightly) for one in (truncate, Path.unlink))]
)
def test_damaged_chunk_is_fetched_and_healed(
    damage: Callable[[Path], None], processes: Processes, there: dict[str, Any], near: Path, moto_server: MotoServer
) -> None:
    """It costs the process that meets it a download, and the next one nothing."""
    start(processes, there)
    chunks = sorted(near.glob("*/*/chunks/*.zst"), key=lambda path: path.stat().st_size)
    damage(chunks[-1])
    found = start(processes, there)
    assert len(found["sources"]) == 2
    assert faults(near) == []
    moto_server.forget()
    start(processes, there)
    assert requests(moto_server) == {"list": 1}


def test_killed_copying_is_taken_up(
    processes: Processes, there: dict[str, Any], near: Path, moto_server: MotoServer
) -> None:
    """`kill -9` at any step leaves nothing that is seen and not whole; the last start completes it."""
    killed = 0
    for count in (2, 7, 11, 13, 17, 40):
        child = processes.start(step("die_at", folder=str(near), count=count), step("warm", **there), MODEL)
        killed += child.exit_status() == -signal.SIGKILL
        seen = {path.stem for path in near.glob("*/*/bundles/*.msgpack")}
        assert seen <= {path.stem for path in near.glob("*/*/bundles/*.copied")}
        assert faults(near) == []
    assert killed >= 4
    start(processes, there)
    assert faults(near) == []
    moto_server.forget()
    start(processes, there)
    assert requests(moto_server) == {"list": 1}


def test_cache_that_is_down_does_not_matter_to_a_filled_node(
    processes: Processes, there: dict[str, Any], near: Path, faulty: MotoServer
) -> None:
    """The copies serve, and the process is told that there may be more."""
    start(processes, there)
    faulty.fault(".", "503")
    found = start(processes, there)
    assert list(found["sources"]) == [str(near)]
    (warning,) = found["warnings"]
    assert "may hold more" in warning


PROGRAM = """
from tests.kit import models
models.doubling()
from torch._dynamo.utils import counters
print("misses", counters["inductor"]["fxgraph_cache_miss"])
"""


def environment(cache: dict[str, Any], **variables: str) -> dict[str, str]:
    """Give a program the credentials of the cache."""
    options = cache["storage_options"]
    return {
        **os.environ,
        "AWS_ENDPOINT_URL": options["endpoint_url"],
        "AWS_ACCESS_KEY_ID": options["key"],
        "AWS_SECRET_ACCESS_KEY": options["secret"],
        **variables,
    }


@pytest.mark.parametrize("way", ["run", pytest.param("autostart", marks=pytest.mark.nightly)])
def test_unchanged_program_takes_the_places(
    way: str, processes: Processes, cache: dict[str, Any], near: Path, tmp_path: Path
) -> None:
    """They stand on the command line or in the variable, a relative folder among them; receipts tell what served."""
    url = f"{near.name} {cache['url']}"
    command = {
        "run": ["megacache", "run", "--quiet", url, "--", sys.executable, "-c", PROGRAM],
        "autostart": ["megacache.autostart", "-c", PROGRAM],
    }[way]
    receipts = tmp_path / "receipts"
    receipts.mkdir()
    for _ in range(2):
        done = subprocess.run(
            [sys.executable, "-m", *command],
            cwd=near.parent,
            env=environment(
                cache,
                MEGACACHE_URL=url if way == "autostart" else "",
                PYTHONPATH=str(REPOSITORY),
                MEGACACHE_RECEIPTS=str(receipts),
                TORCHINDUCTOR_CACHE_DIR=str(processes.new_folder()),
            ),
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=True,
        )
        assert done.stdout.splitlines()[-1] == "misses 0", done.stderr
    found = [list(json.loads(path.read_text())["sources"]) for path in receipts.glob("*.json")]
    assert sorted(found) == [[str(near)], [cache["url"]]]


def test_command_explains_all_places(
    cache: dict[str, Any], near: Path, there: dict[str, Any], processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`megacache explain` looks where a warm start would; other commands take one place."""
    for name, value in environment(cache).items():
        monkeypatch.setenv(name, value)
    shown = document("explain", there["url"])
    assert (shown["url"], shown["bundles"]) == (there["url"], 1)
    start(processes, there)
    assert document("explain", str(near))["bundles"] == 1
    monkeypatch.setenv("MEGACACHE_URL", there["url"])
    shown = document("explain")
    assert (shown["bundles"], shown["warnings"]) == (1, [])
    near.rename(near.with_name("away"))
    near.write_text("no folder")
    shown = document("explain")
    assert (shown["bundles"], len(shown["warnings"])) == (1, 1)
    assert document("ls")["url"] == cache["url"]
