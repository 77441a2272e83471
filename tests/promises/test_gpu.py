"""What only a GPU can show."""

from pathlib import Path

import pytest
import torch

from tests.kit.processes import Processes, step

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="this machine has no CUDA GPU, or torch is a CPU build"),
]


def test_fresh_process_hits_everything_on_a_gpu(fresh_processes: Processes, tmp_path: Path) -> None:
    """A model on a GPU is published under the GPU's name, and a fresh process hits every lookup and the same bits."""
    store = tmp_path / "store"
    facts, cold, published = fresh_processes.run(
        step("environment"), step("run", model="inference", device="cuda"), step("publish", url=str(store))
    )
    assert facts["facts"]["device_type"] in {"cuda", "rocm"}
    assert published["status"] == "published"
    assert [folder.name for folder in store.iterdir()] == [torch.cuda.get_device_name().lower().replace(" ", "-")]
    warmed, warm = fresh_processes.run(step("warm", url=str(store)), step("run", model="inference", device="cuda"))
    assert warmed["status"] == "loaded"
    assert (warm["fx_miss"], warm["aot_miss"]) == (0, 0)
    assert warm["digest"] == cold["digest"]
