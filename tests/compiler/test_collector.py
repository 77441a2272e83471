"""Full collections of Python's garbage collector wait while torch compiles, and no longer."""

import gc
import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import pytest

from megacache._compiler.collector import full_collections_deferred
from tests.kit.processes import Processes, step

COMPILER = "torch._inductor.compile_fx"
VARIABLE = "TORCH_DYNAMO_GC_GEN2_THRESHOLD_DURING_COMPILE"
PROGRAM = """
import gc, json
import torch
import megacache

def function(x):
    return x.sin() + 1

def backend(graph, inputs):
    told["compiling"] = gc.get_threshold()
    if {ends!r} == "fails":
        raise ValueError
    if {ends!r} == "changes":
        gc.set_threshold(500, 5, 5)
    return graph.forward

told = dict()
gc.set_threshold(701, 11, 12)
megacache.warm({url!r})
told["warmed"] = gc.get_threshold()
try:
    torch.compile(function, backend=backend)(torch.ones(3))
except Exception:
    pass
told["compiled"] = gc.get_threshold()
print(json.dumps(told))
"""


def thresholds(folder: Path, processes: Processes, *, ends: str = "well", variable: str | None = None) -> Any:
    """Tell what the thresholds were during a compilation and after it, in a process that had warmed."""
    code = PROGRAM.format(url=str(folder / "store"), ends=ends)
    child = processes.start(step("execute", code=code), environment={VARIABLE: variable})
    child.answers()
    return json.loads(child.stdout.splitlines()[0])


@pytest.mark.parametrize("ends", ["well", "fails"])
def test_full_collections_wait_while_torch_compiles(tmp_path: Path, processes: Processes, ends: str) -> None:
    """The thresholds of the younger generations stay, and the program gets its own back, also after a failure."""
    found = thresholds(tmp_path, processes, ends=ends)
    assert found == {"warmed": [701, 11, 12], "compiling": [701, 11, 1000], "compiled": [701, 11, 12]}


@pytest.mark.parametrize("variable", ["0", pytest.param("none", marks=pytest.mark.nightly)])
def test_variable_of_torch_switches_it_off(tmp_path: Path, processes: Processes, variable: str) -> None:
    """It is the one that torch reads, too, where torch defers collections itself; what it cannot read is off."""
    if variable == "none" and torch_defers():
        pytest.skip("torch reads the variable itself, and refuses what is not a number")
    found = thresholds(tmp_path, processes, variable=variable)
    assert found["compiling"] == [701, 11, 12]


def test_thresholds_that_a_program_sets_meanwhile_stay(tmp_path: Path, processes: Processes) -> None:
    """What it set last is what it wants."""
    if torch_defers():
        pytest.skip("torch defers collections itself, and gives back what was before")
    assert thresholds(tmp_path, processes, ends="changes")["compiled"] == [500, 5, 5]


def test_forked_child_has_the_thresholds_of_the_program() -> None:
    """A child that is forked while the parent compiles never sees the end of that."""
    code = """
import gc, os
from megacache._compiler.collector import full_collections_deferred
with full_collections_deferred():
    child = os.fork()
    if child == 0:
        print(*gc.get_threshold(), flush=True)
    else:
        os.waitpid(child, 0)
assert gc.get_threshold() == (700, 10, 10)
"""
    command = [sys.executable, "-c", f"import gc; gc.set_threshold(700, 10, 10)\n{code}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
    assert done.stdout == "700 10 10\n"


def torch_defers() -> bool:
    """Tell whether this torch defers collections itself."""
    import torch._dynamo.config

    return hasattr(torch._dynamo.config, "gc_gen2_threshold_during_compile")


def test_last_of_the_spans_that_overlap_gives_the_thresholds_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """An outer span goes on after an inner one has ended."""
    monkeypatch.delenv(VARIABLE, raising=False)
    before = gc.get_threshold()
    with full_collections_deferred():
        with full_collections_deferred():
            pass
        assert gc.get_threshold() == (*before[:2], 1000)
    assert gc.get_threshold() == before


def young_collections() -> int:
    """Count the collections of the middle generation since the last full one."""
    return gc.get_count()[2]


@pytest.fixture
def importing(monkeypatch: pytest.MonkeyPatch) -> Callable[[], AbstractContextManager[None]]:
    """Give a block in which torch's compiler is imported, as in the first warm start of a process."""

    @contextmanager
    def block() -> Iterator[None]:
        monkeypatch.delitem(sys.modules, COMPILER, raising=False)
        with full_collections_deferred():
            monkeypatch.setitem(sys.modules, COMPILER, sys)
            yield

    return block


def test_import_of_the_compiler_brings_no_full_collection(
    monkeypatch: pytest.MonkeyPatch, importing: Callable[[], AbstractContextManager[None]]
) -> None:
    """What was imported counts as old; what the program has frozen stays so."""
    monkeypatch.delenv(VARIABLE, raising=False)
    with importing():
        for _ in range(20):
            gc.collect(1)
        assert young_collections() >= 20
    assert (young_collections(), gc.get_freeze_count()) == (0, 0)
    gc.freeze()
    try:
        frozen = gc.get_freeze_count()
        with importing():
            gc.collect(1)
        assert young_collections() == 1
        assert gc.get_freeze_count() > frozen // 2  # what nobody refers to any more goes all the same
    finally:
        gc.unfreeze()


def test_switched_off_it_leaves_the_count_alone(
    monkeypatch: pytest.MonkeyPatch, importing: Callable[[], AbstractContextManager[None]]
) -> None:
    """Then Python collects as it would without megacache."""
    monkeypatch.setenv(VARIABLE, "0")
    with importing():
        before = young_collections()
        gc.collect(1)
    assert young_collections() == before + 1


def test_later_warm_starts_put_no_collection_off(monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that warms again and again would never collect."""
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, COMPILER, sys)
    before = young_collections()
    for _ in range(3):
        with full_collections_deferred():
            gc.collect(1)
    assert young_collections() == before + 3
