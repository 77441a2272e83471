"""A real vLLM server publishes while it serves, and starts warm, with one variable set and nothing else changed."""

import signal
import sys
from pathlib import Path

import pytest

from tests.engines.server import ServerFolders, serving

pytestmark = pytest.mark.nightly
PUBLISHED, COLD, WARM = "megacache: publish published", "megacache: warm miss", "megacache: warm loaded"
UNCHANGED = "megacache: publish unchanged"
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
