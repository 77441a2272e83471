"""A CPU's vector capability is not in PyTorch's keys; it is in megacache's fingerprint."""

import math
import shutil
import signal
from pathlib import Path

import pytest
import torch

from tests.kit.processes import Processes, step

LOWER = {"AVX512": "avx2", "AVX2": "default"}
HERE = torch.backends.cpu.get_cpu_capability()


@pytest.fixture
def lowered() -> dict[str, str | None]:
    """Give the variable that makes this machine compile for a lesser one."""
    if HERE not in LOWER:
        pytest.skip(f"ATEN_CPU_CAPABILITY lowers AVX512 and AVX2 only, this CPU has {HERE}")
    return {"ATEN_CPU_CAPABILITY": LOWER[HERE]}


@pytest.fixture(scope="module")
def of_here(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> Path:
    """Compile a model for this CPU, publish it to `store`, and save it as PyTorch does to `blob`."""
    folder = tmp_path_factory.mktemp("of-here")
    _, published, _ = Processes(folder / "processes", probes).run(
        step("run", model="reduction"),
        step("publish", url=str(folder / "store")),
        step("save_plainly", path=str(folder / "blob")),
    )
    assert published["status"] == "published"
    return folder


@pytest.mark.parametrize("requested", ["avx2", pytest.param("default", marks=pytest.mark.nightly)])
def test_other_capability_is_a_miss_with_right_numbers(
    requested: str, of_here: Path, processes: Processes, tmp_path: Path
) -> None:
    """What was compiled for this CPU is not loaded where another capability is asked for, and the numbers are right."""
    url = str(shutil.copytree(of_here / "store", tmp_path / "store"))
    warmed, ran, eager, again = processes.run(
        step("warm", url=url),
        step("run", model="reduction"),
        step("eager", model="reduction"),
        step("publish", url=url),
        environment={"ATEN_CPU_CAPABILITY": requested},
    )
    assert warmed["status"] == "miss"
    assert "cpu_extensions" in warmed["reason"]
    assert f"requested={requested}" in warmed["reason"]
    assert ran["fx_miss"] == 1
    assert ran["sum"] == pytest.approx(eager["sum"], rel=1e-4)
    assert again["status"] == "published"


def test_reason_names_the_capability_of_both_sides(
    lowered: dict[str, str | None], of_here: Path, processes: Processes
) -> None:
    """The reason for the miss gives the fact and both its values."""
    (warmed,) = processes.run(step("warm", url=str(of_here / "store")), environment=lowered)
    assert f"cpu_capability is {lowered['ATEN_CPU_CAPABILITY']} here, {HERE} there".lower() in warmed["reason"].lower()


def test_plain_torch_hits_across_capabilities(
    lowered: dict[str, str | None], of_here: Path, processes: Processes
) -> None:
    """PyTorch's own blob hits on the lesser CPU; from AVX512 to AVX2 its numbers are wrong, or the process dies."""
    child = processes.start(
        step("load_plainly", path=str(of_here / "blob")),
        step("run", model="reduction"),
        step("eager", model="reduction"),
        environment=lowered,
    )
    if child.exit_status() in {-signal.SIGSEGV, -signal.SIGABRT}:  # as with torch 2.8
        return
    loaded, ran, eager = child.answers()
    assert loaded == {"inductor": 1, "aot_autograd": 1}
    assert (ran["fx_hit"], ran["fx_miss"]) == (1, 0)
    if HERE == "AVX512":
        assert not math.isclose(ran["sum"][0], eager["sum"][0], rel_tol=1e-4)
