"""Of which job a process is a rank, and where its ranks can meet."""

from collections.abc import Mapping

import pytest
import torch.distributed as dist
from torch.testing._internal.distributed.fake_pg import FakeStore  # registers the backend, too

from megacache._compiler import Job, job

TORCHRUN = {
    "WORLD_SIZE": "8",
    "RANK": "3",
    "MASTER_ADDR": "node-0",
    "MASTER_PORT": "29500",
    "TORCHELASTIC_USE_AGENT_STORE": "True",
}


@pytest.fixture(autouse=True)
def announced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no launcher have announced anything."""
    for name in TORCHRUN:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("variables", "found"),
    [
        ({}, None),
        (TORCHRUN | {"WORLD_SIZE": "1"}, None),
        (TORCHRUN | {"WORLD_SIZE": "many"}, None),
        (TORCHRUN, Job(size=8, rank=3, address=("node-0", 29500))),
        (TORCHRUN | {"TORCHELASTIC_USE_AGENT_STORE": "False"}, Job(size=8, rank=3, address=None)),
        (TORCHRUN | {"MASTER_PORT": ""}, Job(size=8, rank=3, address=None)),
        ({"WORLD_SIZE": "2"}, Job(size=2, rank=None, address=None)),
    ],
)
def test_job_that_a_launcher_has_announced(
    variables: Mapping[str, str], found: Job | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only torchrun keeps a store from the beginning; any other is opened by rank 0, and by nobody before."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert job() == found


@pytest.mark.parametrize("kept", ["here", "elsewhere"])
def test_group_counts_for_more_than_variables(kept: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its ranks meet where torch has brought them together, if that is a store that others can connect to."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # type: ignore[attr-defined]
    inner = dist.PrefixStore("job", store) if kept == "here" else FakeStore()  # type: ignore[attr-defined]
    dist.init_process_group("fake", rank=1, world_size=4, store=inner)
    try:
        assert job() == Job(size=4, rank=1, address=("127.0.0.1", store.port) if kept == "here" else None)
    finally:
        dist.destroy_process_group()


def test_group_of_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program may be alone, whatever its launcher has announced."""
    for name, value in TORCHRUN.items():
        monkeypatch.setenv(name, value)
    dist.init_process_group("fake", rank=0, world_size=1, store=FakeStore())
    try:
        assert job() is None
    finally:
        dist.destroy_process_group()
