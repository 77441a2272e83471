"""A library is restored on each processor that can do what its compiler has used, and on no other."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from megacache import _compiler
from megacache._bundle import FilesPart
from tests.cache.test_compiled_files import compilations, manifest_of, rewrite
from tests.kit.processes import Answer, Processes, step
from tests.kit.processors import lesser_compiler

LACKS = "bmi2"
_OF_BMI2 = re.compile(r"\b(?:bzhi|mulx|pdep|pext|rorx|sarx|shlx|shrx)\b")
"""GCC shifts and rotates by these wherever it may."""
_STEPS = ("watch_processes", "warm", "run", "started_processes", "publish")


@pytest.fixture(scope="module")
def lesser(tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, str | None]:
    """Give the variables of a host whose processor lacks an extension of this one."""
    if platform.machine() != "x86_64" or LACKS not in _compiler.toolchain()["cpu_target"].split():
        pytest.skip(f"this processor has no {LACKS}, or its compiler is not GCC")
    folder = lesser_compiler(tmp_path_factory.mktemp("compiler") / "bin", LACKS)
    return {"PATH": os.pathsep.join([str(folder), os.environ["PATH"]]), "CXX": None}


@pytest.fixture(scope="module")
def of_lesser(tmp_path_factory: pytest.TempPathFactory, lesser: Mapping[str, str | None]) -> tuple[Path, Answer]:
    """Give a cache that a process on the lesser processor has published to, and what the model gave there."""
    store = tmp_path_factory.mktemp("of-lesser") / "store"
    bare = Processes(tmp_path_factory.mktemp("cold"), None)
    ran, published = bare.run(step("run", model="normed"), step("publish", url=str(store)), environment=lesser)
    assert published["files"] > 0
    return store, ran


@pytest.fixture
def bare(tmp_path: Path) -> Processes:
    """Start children whose cache folders hold not even ISA probes."""
    return Processes(tmp_path / "bare", None)


def started(
    processes: Processes, store: Path, variables: Mapping[str, str | None] | None = None, **where: Path
) -> Answer:
    """Start warm, run the model and publish; give the answers by the names of the steps."""
    steps = [step("watch_processes"), step("warm", url=str(store)), step("run", model="normed")]
    steps += [step("started_processes"), step("publish", url=str(store))]
    return dict(zip(_STEPS, processes.run(*steps, environment=variables, **where), strict=True))


def _changed(files: FilesPart, **facts: str) -> FilesPart:
    return replace(files, guard={**files.guard, **facts})


def uses_extension(folder: Path) -> bool:
    """Disassemble the libraries of kernels in a cache folder, and look for instructions of the extension."""
    if not shutil.which("objdump"):
        pytest.skip("objdump, of binutils, disassembles")
    libraries = sorted(folder.rglob("*.main.so"))
    assert libraries
    told = subprocess.run(["objdump", "-d", *libraries], capture_output=True, text=True, check=True).stdout
    return _OF_BMI2.search(told) is not None


def test_greater_processor_restores_what_a_lesser_one_compiled(of_lesser: tuple[Path, Answer], bare: Processes) -> None:
    """Nothing is compiled again, what is restored is the code of the lesser processor, and its numbers are the same."""
    store, cold = of_lesser
    folder = bare.new_folder()
    told = started(bare, store, folder=folder)
    assert (told["warm"]["status"], told["warm"]["warnings"]) == ("loaded", [])
    assert told["warm"]["files"] == len(manifest_of(store).files.index)
    assert compilations(told["started_processes"]) == []
    assert (told["run"]["fx_hit"], told["run"]["digest"]) == (1, cold["digest"])
    assert told["publish"]["status"] == "unchanged"
    assert not uses_extension(folder)


def test_lesser_processor_compiles_for_itself(
    processes: Processes, lesser: Mapping[str, str | None], tmp_path: Path
) -> None:
    """What uses an extension that is not there is not restored, which is said; what was compiled instead is published.

    From then on, both restore what the lesser processor has compiled, or their own.
    """
    store, folder = tmp_path / "store", processes.new_folder()
    processes.run(step("run", model="normed"), step("publish", url=str(store)), folder=folder)
    assert uses_extension(folder)
    elsewhere = processes.new_folder()
    told = started(processes, store, lesser, folder=elsewhere)
    assert (told["warm"]["status"], told["warm"]["files"]) == ("loaded", 0)
    (warning,) = told["warm"]["warnings"]
    assert f"cpu_target is unset here, {LACKS} there" in warning
    assert told["run"]["fx_hit"] == 1
    assert not uses_extension(elsewhere)
    assert (told["publish"]["status"], told["publish"]["artifacts"]) == ("published", {})
    assert compilations(started(processes, store, lesser)["started_processes"]) == []
    assert compilations(started(processes, store)["started_processes"]) == []


def test_host_without_compiler_goes_by_its_kernel(
    of_lesser: tuple[Path, Answer], bare: Processes, no_compiler: dict[str, str | None]
) -> None:
    """Where no compiler can be asked, the kernel's flags tell that this processor can do what was used."""
    store, cold = of_lesser
    other = shutil.copytree(store, bare.new_folder() / "store")
    files = manifest_of(other).files
    rewrite(other, files=_changed(files, cpu_flags="fpu of_another_processor"))
    told = started(bare, other, no_compiler)
    assert (told["warm"]["files"], told["warm"]["warnings"]) == (len(files.index), [])
    assert told["run"]["digest"] == cold["digest"]


@pytest.mark.parametrize("flags", ["more", "fewer"])
def test_flags_of_the_kernel_are_not_compared(flags: str, of_lesser: tuple[Path, Answer], bare: Processes) -> None:
    """A kernel that tells of a flag more, or of one less, compiles nothing again."""
    store = shutil.copytree(of_lesser[0], bare.new_folder() / "store")
    files = manifest_of(store).files
    told = files.guard["cpu_flags"]
    rewrite(store, files=_changed(files, cpu_flags=f"{told} a_new_flag" if flags == "fewer" else told.split(" ", 1)[1]))
    assert started(bare, store)["warm"]["files"] == len(files.index)


def test_store_of_an_earlier_version_needs_equal_flags(of_lesser: tuple[Path, Answer], bare: Processes) -> None:
    """Bundles that do not tell what was used are restored as before: where the kernels tell the same flags."""
    store = shutil.copytree(of_lesser[0], bare.new_folder() / "store")
    files = manifest_of(store).files
    rewrite(store, files=_changed(files, cpu_target=""))
    assert started(bare, store)["warm"]["files"] == len(files.index)
    rewrite(store, files=_changed(files, cpu_target="", cpu_flags=f"{files.guard['cpu_flags']} a_new_flag"))
    (warned,) = bare.run(step("warm", url=str(store)))
    (warning,) = warned["warnings"]
    assert "cpu_flags is unset here, a_new_flag there" in warning
