"""megacache leaves the program as it was."""

import re
from pathlib import Path

import pytest

from tests.kit.processes import Processes, step


def test_nothing_is_left_changed(fresh_processes: Processes, tmp_path: Path) -> None:
    """Warming, publishing and taking a receipt change no variable, no torch setting and no logger."""
    url = str(tmp_path / "store")
    _, before, _, warmed, _, compiled, _, _, _, published = fresh_processes.run(
        step("import_compiler"),
        step("snapshot"),
        step("warm", url=url),
        step("snapshot"),
        step("run", model="doubling"),
        step("snapshot"),
        step("publish", url=url),
        step("warm", url=url),
        step("receipt"),
        step("snapshot"),
    )
    for earlier, later in ((before, warmed), (compiled, published)):
        loggers = later.pop("loggers")
        assert {name: loggers[name] for name in earlier["loggers"]} == earlier.pop("loggers")
        assert later == earlier


def test_importing_torch_for_the_program_pins_no_folder(fresh_processes: Processes, tmp_path: Path) -> None:
    """The compiler pins its cache folder in the environment when it is imported; a warm start takes that back."""
    bare: dict[str, str | None] = {"TORCHINDUCTOR_CACHE_DIR": None, "TMPDIR": str(tmp_path)}
    before, warmed, after = fresh_processes.run(
        step("snapshot"), step("warm", url=str(tmp_path / "store")), step("snapshot"), environment=bare
    )
    assert warmed["status"] == "miss"
    assert after["environment"] == before["environment"]


LOGS = "+dynamo,+inductor,+torch._functorch._aot_autograd.autograd_cache"


@pytest.mark.parametrize("logs", [None, LOGS], ids=["as ever", "all"])
def test_listening_is_not_heard(processes: Processes, tmp_path: Path, logs: str | None) -> None:
    """With a warm start and a receipt, torch says the same, at the same levels and places, as without."""
    plain = [step("environment"), step("run", model="conditional")]
    heard = [step("warm", url=str(tmp_path / "store")), *plain, step("receipt")]
    said = []
    for steps in (plain, heard):
        child = processes.start(*steps, environment={"TORCH_LOGS": logs})
        child.answers()
        places = re.findall(r"^([A-Z])\d{4} \S+ \d+ (\S+:\d+)\]", child.stderr, re.MULTILINE)
        said.append((places, child.stderr.count("\n")))
    assert said[0] == said[1]
    assert said[0][0] or not logs
