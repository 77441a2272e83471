"""What only a GPU can show."""

from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.kit.processes import Processes, step

pytestmark = pytest.mark.gpu


@pytest.fixture
def gpu(fresh_processes: Processes, gpus: Mapping[str, str | None]) -> str:
    """Give the name of the GPU."""
    (found,) = fresh_processes.run(step("gpu"), environment=gpus)
    if not found["name"]:
        pytest.skip("this machine has no CUDA GPU, or torch is a CPU build")
    name: str = found["name"]
    return name


def test_fresh_process_hits_everything_on_a_gpu(
    fresh_processes: Processes, gpus: Mapping[str, str | None], gpu: str, tmp_path: Path
) -> None:
    """A model on a GPU is published under the GPU's name, and a fresh process hits every lookup and the same bits."""
    store = tmp_path / "store"
    facts, cold, published = fresh_processes.run(
        step("environment"),
        step("run", model="inference", device="cuda"),
        step("publish", url=str(store)),
        environment=gpus,
    )
    assert facts["facts"]["device_type"] in {"cuda", "rocm"}
    assert published["status"] == "published"
    assert [folder.name for folder in store.iterdir()] == [gpu.lower().replace(" ", "-")]
    warmed, warm = fresh_processes.run(
        step("warm", url=str(store)), step("run", model="inference", device="cuda"), environment=gpus
    )
    assert warmed["status"] == "loaded"
    assert (warm["fx_miss"], warm["aot_miss"]) == (0, 0)
    assert warm["digest"] == cold["digest"]
