"""Real workers on one node: each chunk leaves the store once, also if the one that was fetching it was killed."""

import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.kit.command import document, in_child
from tests.kit.processes import TIMEOUT, Processes, Running, step
from tests.kit.servers import Server
from tests.kit.servers.moto import MotoServer

WORKERS = 8
MODEL = step("run", model="doubling")


@pytest.fixture
def there(moto_s3: Server, name: str, processes: Processes) -> dict[str, Any]:
    """Publish a model on S3."""
    place = {"url": f"{moto_s3.url}/{name}", "storage_options": dict(moto_s3.storage_options)}
    _, published = processes.run(MODEL, step("publish", **place))
    assert published["status"] == "published"
    return place


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let processes keep chunks below a folder, and start without one."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "node"))
    monkeypatch.delenv("MEGACACHE_NODE_MAX_BYTES")
    return tmp_path / "node" / "megacache" / "chunks"


def requests(server: MotoServer, ending: str = ".zst") -> Counter[str]:
    """Count the requests for each chunk, or manifest."""
    return Counter(line for line in server.requests() if line.startswith("GET ") and ending in line)


def await_requests(server: MotoServer, ending: str, count: int, worker: Running) -> None:
    """Wait until a worker has asked for something."""
    deadline = time.monotonic() + TIMEOUT
    while requests(server, ending).total() < count:
        assert worker.process.poll() is None, worker.stderr
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_eight_workers_download_each_chunk_once(
    processes: Processes, there: dict[str, Any], node: Path, moto_server: MotoServer, tmp_path: Path
) -> None:
    """They start at once, load the same, and compile nothing."""
    moto_server.forget()
    together = step("meet", path=str(tmp_path / "gate"), others=WORKERS)
    workers = [processes.start(together, step("warm", **there), MODEL) for _ in range(WORKERS)]
    for _, warmed, ran in (worker.answers() for worker in workers):
        assert (warmed["status"], ran["fx_miss"]) == ("loaded", 0)
    found = requests(moto_server)
    assert len(found) >= 2
    assert set(found.values()) == {1}
    assert {path.stem for path in node.iterdir()} == {line.rpartition("/")[2].split(".zst")[0] for line in found}


def test_killed_downloader_is_followed(
    processes: Processes, there: dict[str, Any], node: Path, faulty: MotoServer
) -> None:
    """`kill -9` of one that others wait for lets them go on at once, not when their patience ends."""
    faulty.forget()
    faulty.fault(r"^GET .*\.zst", "hang", times=2)
    killed = processes.start(step("warm", timeout=600, **there))
    await_requests(faulty, ".zst", 2, killed)
    assert sorted(path.suffix for path in node.iterdir()) == [".lock", ".lock"]
    follower = processes.start(step("warm", timeout=4 * TIMEOUT, **there), MODEL)
    await_requests(faulty, ".msgpack", 2, follower)
    killed.process.kill()
    assert killed.exit_status() == -signal.SIGKILL
    warmed, ran = follower.answers()
    assert (warmed["status"], ran["fx_miss"]) == ("loaded", 0)
    assert set(requests(faulty).values()) == {2}
    assert sorted(path.suffix for path in node.iterdir()) == [".zst", ".zst"]


def test_damage_on_the_node_costs_a_download(
    processes: Processes, there: dict[str, Any], node: Path, moto_server: MotoServer
) -> None:
    """What the disk has changed is not loaded; a later process finds it whole."""
    processes.run(step("warm", **there), MODEL)
    for path in node.iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"?")
    moto_server.forget()
    for _ in range(2):
        warmed, _ = processes.run(step("warm", **there), MODEL)
        assert (warmed["status"], warmed["warnings"]) == ("loaded", [])
    assert set(requests(moto_server).values()) == {1}


def test_command_shows_and_clears_what_is_kept(processes: Processes, there: dict[str, Any], node: Path) -> None:
    """`megacache cache` counts what warm starts have left, and removes it."""
    assert document("cache")["chunks"] == 0
    processes.run(step("warm", **there), MODEL)
    shown = document("cache")
    sizes = [path.stat().st_size for path in node.iterdir()]
    assert (shown["folder"], shown["chunks"], shown["bytes"]) == (str(node), len(sizes), sum(sizes))
    assert (shown["max_bytes"], shown["cleared"]) == (10 << 30, False)
    assert shown["oldest_use"] <= shown["newest_use"]
    told = in_child("cache")
    assert (told.returncode, str(len(sizes)) in told.stdout, str(node) in told.stdout) == (0, True, True)
    assert f"removed {len(sizes)} chunks" in in_child("cache", "--clear").stderr
    assert list(node.iterdir()) == []
    assert "off" in in_child("cache", environment={"MEGACACHE_NODE_MAX_BYTES": "0"}).stdout
