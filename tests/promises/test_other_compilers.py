"""What other compilers keep in their folders travels, and is used only where it means the same."""

import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from tests.kit import extension
from tests.kit.command import in_child
from tests.kit.processes import REPOSITORY, TIMEOUT, Answer, Processes, Step, step

ANSWER = 'extern "C" int answer() {{ return {}; }}\n'
FOLDERS = {"cpp_extension": None}


class Machine:
    """A host with compilers that are watched."""

    def __init__(self, folder: Path, processes: Processes) -> None:
        self.store = str(folder / "store")
        self.extensions = folder / "extensions"
        self._commands = extension.compilers(folder / "bin")
        self.processes = processes
        self.environment = {
            "PATH": f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}",
            "TORCH_EXTENSIONS_DIR": str(self.extensions),
        }

    def empty(self) -> None:
        """Start as a new host would: with empty folders."""
        if self.extensions.exists():
            self.extensions.rename(self.extensions.with_name(f"{self.extensions.name}-{os.urandom(4).hex()}"))
        self._commands.write_text("")

    def runs(self, *steps: Step, folders: Any = FOLDERS) -> Sequence[Answer]:
        """Take steps between a warm start in empty folders and a publication."""
        self.empty()
        warm, publish = step("warm", url=self.store, folders=folders), step("publish", url=self.store)
        return self.processes.run(warm, *steps, publish, environment=self.environment)

    def compiled(self) -> int:
        """Count the times that a compiler compiled or linked, and was not only asked for its version."""
        return sum("-o" in line.split() for line in self._commands.read_text().splitlines())


@pytest.fixture
def machine(tmp_path: Path, processes: Processes) -> Machine:
    """Give a host of its own to a test."""
    return Machine(tmp_path, processes)


def test_program_finds_its_extension_built(machine: Machine) -> None:
    """Below `megacache run --folder`, a program builds its inline extension once, and never in another empty folder."""
    command = [sys.executable, "-m", "megacache", "run", "--folder", "cpp_extension", machine.store, "--"]
    program = [sys.executable, "-m", "tests.kit.extension", "and more"]
    for compilations in (2, 0):
        machine.empty()
        done = subprocess.run(
            [*command, *program],
            cwd=REPOSITORY,
            env={**os.environ, **machine.environment},
            capture_output=True,
            text=True,
            timeout=TIMEOUT,
            check=False,
        )
        assert (done.returncode, done.stdout) == (0, "42 and more\n"), done.stderr
        assert machine.compiled() == compilations, done.stderr


def test_changed_extension_is_built_and_travels_too(machine: Machine) -> None:
    """An extension of the same name and another source is built once; the newest is found, and both work."""
    starts = [(1, 2, "published"), (1, 0, "unchanged"), (2, 2, "published"), (2, 0, "unchanged"), (1, 2, "unchanged")]
    for number, compilations, status in starts:
        _, ran, published = machine.runs(step("inline", source=ANSWER.format(number), module=False))
        assert (ran["answer"], machine.compiled(), published["status"]) == (number, compilations, status), published


def test_source_elsewhere_counts_by_its_content(machine: Machine, tmp_path: Path) -> None:
    """A source that is the same is not built again however new it is; another one is, however old it is."""
    source = tmp_path / "answer.cpp"
    source.write_text(ANSWER.format(1))
    machine.runs(step("outside", path=str(source)))
    source.write_text(ANSWER.format(1))
    warmed, ran, _ = machine.runs(step("outside", path=str(source)))
    assert (ran["answer"], machine.compiled(), warmed["warnings"]) == (1, 0, [])
    source.write_text(ANSWER.format(2))
    os.utime(source, (1, 1))
    warmed, ran, _ = machine.runs(step("outside", path=str(source)))
    assert (ran["answer"], machine.compiled()) == (2, 2)
    assert [f"{source} is not the one" in warning for warning in warmed["warnings"]] == [True]


def test_build_of_another_folder_is_left_out(machine: Machine, tmp_path: Path) -> None:
    """Ninja builds again in another folder, and so nothing is put there; a warning says so."""
    machine.runs(step("inline", source=ANSWER.format(1), module=False))
    machine.environment["TORCH_EXTENSIONS_DIR"] = str(tmp_path / "elsewhere")
    warmed, ran, _ = machine.runs(step("inline", source=ANSWER.format(1), module=False))
    assert (ran["answer"], machine.compiled()) == (1, 2)
    assert ["use the same path" in warning for warning in warmed["warnings"]] == [True]


def test_build_that_lacks_a_library_is_left_out(machine: Machine, tmp_path: Path) -> None:
    """An extension whose library has got another version is built anew, as it would be without a warm start."""
    source, libraries = tmp_path / "answer.cpp", tmp_path / "libraries"
    source.write_text('extern "C" int given();\nextern "C" int answer() { return given(); }\n')
    libraries.mkdir()
    linked = step("outside", path=str(source), flags=[f"-L{libraries}", "-lgiven", f"-Wl,-rpath,{libraries}"])
    for version, compilations in ((1, 2), (1, 0), (2, 2)):
        for path in libraries.iterdir():
            path.unlink()
        name = f"libgiven.so.{version}"
        command = ["gcc", "-shared", "-x", "c", "-", "-o", str(libraries / name), f"-Wl,-soname,{name}"]
        subprocess.run(command, input=f"int given(void) {{ return {version}; }}", text=True, check=True)
        (libraries / "libgiven.so").symlink_to(name)
        warmed, ran, _ = machine.runs(linked)
        assert (ran["answer"], machine.compiled()) == (version, compilations), warmed
    assert ["it needs libgiven.so.1, which is not here" in warning for warning in warmed["warnings"]] == [True]


def test_what_stands_here_is_not_replaced(machine: Machine) -> None:
    """A build that is there stays as it is."""
    machine.runs(step("inline", source=ANSWER.format(1), module=False))
    machine.runs(step("inline", source=ANSWER.format(2), module=False))
    library = next(machine.extensions.rglob("*.so"))
    before = library.stat()
    machine.empty = lambda: None  # type: ignore[method-assign]
    machine.runs(step("inline", source=ANSWER.format(2), module=False))
    after = library.stat()
    assert (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns)


WRITE = (
    "import pathlib; path = pathlib.Path({!r}); path.parent.mkdir(parents=True, exist_ok=True); path.write_text({!r})"
)


def test_folder_of_ones_own_travels_where_its_facts_agree(machine: Machine, tmp_path: Path) -> None:
    """What a program writes into a folder of its own is there for the next, unless a fact of its own differs."""
    kernels = tmp_path / "kernels"

    def start(*steps: Step, version: str) -> Sequence[Answer]:
        code = (
            "import megacache; from megacache import Folder; "
            f"folders = {{'mine': Folder(path={str(kernels)!r}, facts={{'version': {version!r}}})}}; "
            f"megacache.warm({machine.store!r}, folders=folders)"
        )
        if kernels.exists():
            kernels.rename(tmp_path / f"kernels-{os.urandom(4).hex()}")
        publish = step("publish", url=machine.store)
        return machine.processes.run(step("execute", code=code), *steps, publish)

    names = ("ab/kernel.cubin", "ab/.hidden", "ab/build.log", "tmp/half.cubin")
    written = [step("execute", code=WRITE.format(str(kernels / name), name)) for name in names]
    assert start(*written, version="1")[-1]["files"] == 1
    start(version="1")
    assert [path.read_text() for path in kernels.rglob("*") if path.is_file()] == ["ab/kernel.cubin"]
    start(version="2")
    assert not kernels.exists()


def test_folders_are_checked_before_the_program_starts(tmp_path: Path) -> None:
    """A path is absolute for the program, which may work elsewhere; a name that means nothing is told at once."""
    command = ("run", "--folder", "cpp_extension", "--folder", "mine=kernels", tmp_path)
    done = in_child(*command, "--", "printenv", "MEGACACHE_FOLDERS")
    assert done.stdout == f"cpp_extension:mine={REPOSITORY}/kernels\n"
    done = in_child("run", "--folder", "unheard_of", tmp_path, "--", "echo", "started")
    assert (done.returncode, done.stdout) == (2, "")
    assert "give its path" in done.stderr
    done = in_child("run", "--folder", "mine=a:b", tmp_path, "--", "echo", "started")
    assert (done.returncode, done.stdout) == (2, "")
