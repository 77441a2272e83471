"""A CPU's vector capability is not in PyTorch's keys; it is in megacache's fingerprint."""

import math
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


@pytest.mark.parametrize("requested", ["avx2", "default"])
def test_other_capability_is_a_miss_with_right_numbers(requested: str, processes: Processes, tmp_path: Path) -> None:
    """What was compiled for this CPU is not loaded where another capability is asked for, and the numbers are right."""
    url = str(tmp_path / "store")
    _, published = processes.run(step("run", model="reduction"), step("publish", url=url))
    assert published["status"] == "published"
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
    lowered: dict[str, str | None], processes: Processes, tmp_path: Path
) -> None:
    """The reason for the miss gives the fact and both its values."""
    url = str(tmp_path / "store")
    processes.run(step("run", model="doubling"), step("publish", url=url))
    (warmed,) = processes.run(step("warm", url=url), environment=lowered)
    assert f"cpu_capability is {lowered['ATEN_CPU_CAPABILITY']} here, {HERE} there".lower() in warmed["reason"].lower()


def test_plain_torch_hits_across_capabilities(
    lowered: dict[str, str | None], processes: Processes, tmp_path: Path
) -> None:
    """PyTorch's own blob hits on the lesser CPU; from AVX512 to AVX2 its numbers are wrong, or the process dies."""
    blob = str(tmp_path / "blob")
    processes.run(step("run", model="reduction"), step("save_plainly", path=blob))
    child = processes.start(
        step("load_plainly", path=blob),
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
