"""A real vLLM server publishes while it serves, and starts warm, with one variable set and nothing else changed."""

import signal
import sys
from pathlib import Path

import pytest

from tests.engines.server import ServerFolders, run_offline, serving

pytestmark = pytest.mark.nightly
PUBLISHED, COLD, WARM = "megacache: publish published", "megacache: warm miss", "megacache: warm loaded"
UNCHANGED = "megacache: publish unchanged"
WORKERS = 2
RUN = (sys.executable, "-m", "megacache", "run")


@pytest.mark.parametrize("ends_by", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_second_start_compiles_nothing(model: Path, folders: ServerFolders, ends_by: signal.Signals) -> None:
    """The first start publishes while it serves; the second loads that, compiles no C++ and adds nothing."""
    with serving(model, folders) as server:
        first = server.complete("hello")
        server.wait_until_it_says(PUBLISHED)
        stored = folders.bundles()
        assert stored
        assert COLD in server.said()
        assert server.end(ends_by) == 0
    with serving(model, folders) as server:
        assert server.complete("hello") == first
        server.wait_until_it_says(UNCHANGED)
        assert WARM in server.said()
        assert "compiled anew: 0 C++" in server.said()
        assert server.end(ends_by) == 0
    assert folders.bundles() == stored


def test_server_below_run(model: Path, folders: ServerFolders) -> None:
    """The same below `megacache run`, without a variable."""
    run = (*RUN, "--publish-after", "3", str(folders.store), "--")
    with serving(model, folders, *run, url=False) as server:
        server.wait_until_it_says(PUBLISHED)
        assert server.end(signal.SIGTERM) == 0
    stored = folders.bundles()
    with serving(model, folders, *run, url=False) as server:
        server.wait_until_it_says("compiled anew: 0 C++")
        assert server.end(signal.SIGTERM) == 0
    assert folders.bundles() == stored


def test_server_that_may_shut_down_publishes_at_its_end(model: Path, folders: ServerFolders) -> None:
    """What was compiled is not lost if the server ends within its quiet time, where vLLM gives its workers the time."""
    run = (*RUN, "--publish-after", "600", str(folders.store), "--")
    with serving(model, folders, *run, options=["--shutdown-timeout", "20"], url=False) as server:
        assert server.end(signal.SIGTERM) == 0
    assert folders.bundles()


def test_server_below_sidecar(model: Path, folders: ServerFolders) -> None:
    """The sidecar publishes as soon as the server is ready, long before it is quiet; the second start is warm."""
    sidecar = (sys.executable, "-m", "megacache", "sidecar", "--ready-url", "http://127.0.0.1:{port}/health")
    command = (*sidecar, str(folders.store), "--")
    with serving(model, folders, *command, url=False, quiet=600) as server:
        server.wait_until_it_says(PUBLISHED)
        assert "ready after" in server.said()
        assert server.end(signal.SIGTERM) == 0
    stored = folders.bundles()
    with serving(model, folders, *command, url=False, quiet=600) as server:
        server.wait_until_it_says("compiled anew: 0 C++")
        assert server.end(signal.SIGTERM) == 0
    assert folders.bundles() == stored


def test_two_workers_of_one_model(model: Path, folders: ServerFolders) -> None:
    """With tensor parallelism, both workers publish what they compile, and both start warm."""
    options = ["--tensor-parallel-size", "2"]
    with serving(model, folders, options=options) as server:
        first = server.complete("hello")
        server.wait_until_it_says("megacache: publish ", times=WORKERS)
        assert server.end(signal.SIGTERM) == 0
    stored = folders.bundles()
    with serving(model, folders, options=options) as server:
        assert server.complete("hello") == first
        server.wait_until_it_says("compiled anew: 0 C++", times=WORKERS)
        assert server.end(signal.SIGTERM) == 0
    assert folders.bundles() == stored


def test_one_process(model: Path, folders: ServerFolders) -> None:
    """A script that uses `LLM(…)` publishes at its end, and its second run is warm and says the same."""
    cold = run_offline(model, folders)
    assert PUBLISHED in cold
    stored = folders.bundles()
    warm = run_offline(model, folders)
    assert WARM in warm
    assert "compiled anew: 0 C++" in warm
    assert folders.bundles() == stored
    assert continued(warm) == continued(cold)


def continued(said: str) -> str:
    """Find what the model made of the prompt."""
    return next(line for line in said.splitlines() if line.startswith("continued:"))
