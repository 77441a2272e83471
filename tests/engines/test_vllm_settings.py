"""What one vLLM server compiled serves another one only where all of its settings are the same, as vLLM's key forgets.

The servers compile as on a GPU, see `gpu_mode`, and are told apart from outside: by their logs, the store and the
command line.
"""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from megacache._bundle import unseal
from tests.engines import gpu_mode
from tests.engines.server import NOTHING, Server, ServerFolders, serving
from tests.engines.test_vllm_server import PUBLISHED, UNCHANGED, WARM
from tests.kit.servers import free_port

pytestmark = pytest.mark.nightly
LOADED = "Directly load AOT compilation"
FAILED = "Compiling model again due to a load failure"
SAVED = "saved AOT compiled function to "
# vLLM registers neither, and has the third in its key.
OWN = {"VLLM_SOMEBODYS_SWITCH": "1", "VLLM_SOMEBODYS_TOKEN": "hunter2", "VLLM_NIXL_SIDE_CHANNEL_PORT": "5600"}
NONE_FITS = "none of 1 bundle with files of vllm fits here"


@contextmanager
def server(
    model: Path, folders: ServerFolders, *options: str, variables: Mapping[str, str] = NOTHING, **more: Any
) -> Iterator[Server]:
    """Serve as on a GPU, with some variables of vLLM's and of others."""
    path = {"PYTHONPATH": gpu_mode.install(folders.plugins), "MEGACACHE_RECEIPTS": str(folders.plugins / "receipts")}
    (folders.plugins / "receipts").mkdir(exist_ok=True)
    with serving(model, folders, options=options, variables={**OWN, **path, **variables}, **more) as started:
        yield started
        assert started.end(signal.SIGTERM) == 0


def receipts(folders: ServerFolders) -> list[dict[str, Any]]:
    """Read the receipts of the processes that have compiled or loaded, the newest last."""
    paths = sorted((folders.plugins / "receipts").glob("*.json"), key=lambda path: path.stat().st_mtime)
    return [json.loads(path.read_text()) for path in paths]


def explained(folders: ServerFolders) -> str:
    """Ask the command line why the last start missed."""
    command = [sys.executable, "-m", "megacache", "explain", str(folders.store)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


@pytest.fixture(scope="module")
def published(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Serve once, and give the store."""
    folders = ServerFolders(tmp_path_factory.mktemp("first"))
    with server(model, folders) as started:
        started.wait_until_it_says(PUBLISHED)
        started.complete("hello")
    return folders.store


@pytest.fixture
def second(published: Path, folders: ServerFolders) -> ServerFolders:
    """Give another host, and a store as the first server has left it."""
    shutil.copytree(published, folders.store)
    return folders


def test_nothing_secret_is_published(published: Path) -> None:
    """The facts show numbers and switches, digests of anything else, and nothing of a variable that seems secret."""
    (path,) = published.glob("*/*/bundles/*.msgpack")
    guard = unseal(path.read_bytes()).files.guard
    assert guard["VLLM_SOMEBODYS_SWITCH"] == "1"
    assert "VLLM_SOMEBODYS_TOKEN" not in guard
    assert guard["scheduler_config.max_num_seqs"] == "4"
    assert b"hunter2" not in path.read_bytes()
    assert not any("/" in value for value in guard.values() if not value.startswith("gcc"))


def test_ports_and_places_change_nothing(model: Path, second: ServerFolders) -> None:
    """Where only ports, hosts and folders differ, vLLM loads the model, and the receipt says so."""
    elsewhere = {
        "VLLM_PORT": str(free_port()),
        "VLLM_SERVICE_HOST": "10.0.0.7",
        "VLLM_LOGGING_PREFIX": "replica two ",
        "VLLM_ASSETS_CACHE": str(second.plugins / "assets"),
    }
    stored = second.bundles()
    with server(model, second, "--served-model-name", "model", "other", variables=elsewhere) as started:
        started.wait_until_it_says(UNCHANGED)
        assert WARM in started.said()
        assert LOADED in started.said()
        assert "verdict=warm:" in started.said()
        assert "vllm loaded 1 of 1 restored model" in started.said()
    assert second.bundles() == stored
    (receipt,) = [one for one in receipts(second) if one["warm_starts"]]
    assert (receipt["models_of"], receipt["models_restored"], receipt["models_loaded"]) == ("vllm", 1, 1)


@pytest.mark.parametrize(
    ("changed", "options", "named"),
    [
        ({"VLLM_SOMEBODYS_SWITCH": "2"}, (), "VLLM_SOMEBODYS_SWITCH is 2 here, 1 there"),
        ({"VLLM_NIXL_SIDE_CHANNEL_PORT": "5601"}, (), "VLLM_NIXL_SIDE_CHANNEL_PORT is 5601 here, 5600 there"),
        ({}, ("--max-num-seqs", "3"), "scheduler_config.max_num_seqs is 3 here, 4 there"),
        ({}, ("--enable-lora", "--max-lora-rank", "8"), "lora_config.max_lora_rank is 8 here, unset there"),
    ],
    ids=["variable", "port in vLLM's key", "limit", "LoRA"],
)
def test_what_vllm_forgets_is_compared(
    changed: Mapping[str, str], options: tuple[str, ...], named: str, model: Path, second: ServerFolders
) -> None:
    """A server with another setting loads nothing, names it with both values, and publishes its own."""
    stored = second.bundles()
    with server(model, second, *options, variables=changed) as started:
        started.wait_until_it_says(PUBLISHED)
        said = started.said()
    assert NONE_FITS in said
    assert named in said
    assert LOADED not in said
    assert len(second.bundles()) == len(stored) + 1
    fact, _, values = named.partition(" is ")
    here, there = values.removesuffix(" there").split(" here, ")
    assert [fact, here, there] in [line.split() for line in explained(second).splitlines()]


def test_what_cannot_be_loaded_is_left_out(model: Path, folders: ServerFolders) -> None:
    """A model that vLLM fails to load is blamed once: this host and the next one use what was compiled instead."""
    with server(model, folders, quiet=15) as started:
        started.wait_until_it_says(SAVED)
        saved = started.said().partition(SAVED)[2].split()[0]
        Path(saved).write_bytes(b"not what it was")
        started.wait_until_it_says(PUBLISHED)
    (broken,) = folders.bundles()
    with server(model, folders) as started:
        started.wait_until_it_says(PUBLISHED)
        said = started.said()
        assert FAILED in said
        assert f"bundle {broken} is left out on this host from now on" in said
        assert "the transfer of 1 compiled model was worthless" in said
    assert len(folders.bundles()) == 2
    with server(model, folders, emptied=False) as started:
        started.wait_until_it_says(UNCHANGED)
        said = started.said()
        assert f"bundle {broken} was left out: a program on this host could not use what it holds" in said
        assert LOADED in said
    with server(model, folders) as started:
        started.wait_until_it_says(UNCHANGED)
        assert LOADED in started.said()
        assert FAILED not in started.said()
    assert len(folders.bundles()) == 2
