"""A function that Dynamo does not look into keeps its graph out of AOTAutograd's cache, wherever it is called."""

from pathlib import Path

import pytest
import torch

from tests.kit.processes import Processes, step


def test_changed_function_in_a_checkpoint_gives_right_numbers(processes: Processes, tmp_path: Path) -> None:
    """The body of a checkpoint is no hiding place: a changed function is traced again, and its kernels compiled."""
    url = str(tmp_path / "store")
    model = "checkpointed"
    processes.run(step("run", model=model), step("publish", url=url))  # PyTorch itself publishes an entry for it
    warmed, ran, eager = processes.run(
        step("warm", url=url), step("run", model=model, factor=3.0), step("eager", model=model, factor=3.0)
    )
    takes_checkpoints = not torch.__version__.startswith("2.8.")
    assert warmed["artifacts"].get("aot_autograd", 0) == takes_checkpoints
    assert ran["aot_hit"] == 0
    assert ran["sum"] == pytest.approx(eager["sum"])


def test_same_function_in_a_checkpoint_finds_its_kernels(processes: Processes, tmp_path: Path) -> None:
    """Only AOTAutograd's entry is not used: Inductor's key holds what the function was traced to."""
    url = str(tmp_path / "store")
    processes.run(step("run", model="checkpointed"), step("publish", url=url))
    _, ran, published = processes.run(
        step("warm", url=url), step("run", model="checkpointed"), step("publish", url=url)
    )
    assert (ran["fx_hit"], ran["fx_miss"], ran["aot_hit"]) == (2, 0, 0)
    assert published["status"] == "unchanged"
    assert "Unsupported call_function target" in " ".join(published["receipt"]["warnings"])
