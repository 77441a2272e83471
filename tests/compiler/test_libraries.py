"""A restored library that nobody could load never gets its name, and the process that finds that out goes on."""

import ctypes
import importlib.util
import subprocess
import sysconfig
from collections.abc import Mapping
from pathlib import Path

import pytest

from megacache._bundle import CompiledFile
from megacache._compiler import Folder, register_folders, restore
from megacache._compiler.libraries import mapped_files
from megacache.errors import CompilerError


def extension() -> Path:
    """Find a module for Python that is a library, and that this process has not loaded."""
    spec = importlib.util.find_spec("_testcapi")
    if spec is not None and spec.origin is not None and spec.origin.endswith(".so"):
        return Path(spec.origin)
    mapped = {path.resolve() for path in mapped_files()}
    found = (
        path for path in sorted(Path(sysconfig.get_path("platlib")).rglob("*.so")) if path.stat().st_size < 1 << 20
    )
    return next(path for path in found if path.resolve() not in mapped and exports_its_name(path))


def exports_its_name(path: Path) -> bool:
    """Tell whether a library is a module of the name that its file has."""
    return f"PyInit_{path.name.partition('.')[0]}\0".encode() in path.read_bytes()


EXTENSION = extension()
SOUND = EXTENSION.read_bytes()
FOLDER = "A2Z7" * 13
MODULE = f"{FOLDER}/{EXTENSION.name}"
PROBE = f"ab/c{'ab2' * 17}.so"
CUT = SOUND[: len(SOUND) // 4]
UNUSABLE: Mapping[str, tuple[str, bytes]] = {
    "garbage": (MODULE, b"garbage" * 1_000),
    "empty": (MODULE, b""),
    "cut off": (MODULE, CUT),
    "another module": (f"{FOLDER}/cuda_utils.so", SOUND),
    "launcher in a folder of Inductor's": (
        f"triton/0/{FOLDER}/__triton_launcher.cpython-311-x86_64-linux-gnu.so",
        b"x",
    ),
    "garbage for a probe": (PROBE, b"garbage" * 1_000),
    "probe that is cut off": (PROBE, CUT),
    "kernel that is cut off": ("ab/cabc.main.so", CUT),
    "code for a GPU that is garbage": (f"{FOLDER}/kernel.cubin", b"garbage" * 1_000),
    "code for a GPU that is cut off": (f"{FOLDER}/kernel.hsaco", CUT),
    "description that is cut off": (f"{FOLDER}/kernel.json", b'{"hash": "12'),
    "list that is empty": (f"{FOLDER}/__grp__kernel.json", b""),
}


def file(path: str, content: bytes) -> CompiledFile:
    """Make a library."""
    return CompiledFile(root="triton", path=path, mode=0o755, content=content)


@pytest.mark.parametrize(("path", "content"), UNUSABLE.values(), ids=UNUSABLE)
def test_library_that_cannot_be_used_is_not_restored(path: str, content: bytes, tmp_path: Path) -> None:
    """It gets no name, and where it has one already, it loses it: what needs it is compiled."""
    with pytest.raises(CompilerError):
        restore(file(path, content), tmp_path)
    assert [found for found in tmp_path.rglob("*") if found.is_file()] == []
    (tmp_path / path).write_bytes(content)
    with pytest.raises(CompilerError):
        restore(file(path, content), tmp_path)
    assert not (tmp_path / path).exists()


def test_module_that_can_be_used_is_restored_and_let_go(tmp_path: Path) -> None:
    """A module stays out of this process until Triton asks for it: what is not used is not published as used."""
    assert restore(file(MODULE, SOUND), tmp_path)
    assert not restore(file(MODULE, SOUND), tmp_path)
    assert (tmp_path / MODULE).read_bytes() == SOUND
    assert [path for path in mapped_files() if path.is_relative_to(tmp_path)] == []


def test_library_of_another_compiler_needs_what_it_was_linked_with(tmp_path: Path) -> None:
    """It is restored where the system finds all of that; elsewhere its compiler is left to make it anew."""
    given, made, folder = tmp_path / "libgiven.so.1", tmp_path / "made.so", tmp_path / "folder"
    for output, others in ((given, [f"-Wl,-soname,{given.name}"]), (made, [given, f"-Wl,-rpath,{tmp_path}"])):
        code = "int a;" if output == given else "extern int a; int b(void) { return a; }"
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-x", "none", *map(str, others), "-o", str(output)]
        subprocess.run(command, input=code, text=True, check=True)
    register_folders({"mine": Folder(path=folder)})
    library = CompiledFile(root="folder:mine", path="ab/made.so", mode=0o755, content=made.read_bytes())
    moved = given.rename(tmp_path / "moved")
    with pytest.raises(CompilerError, match=r"needs libgiven\.so\.1, which is not here"):
        restore(library, folder)
    assert [path for path in folder.rglob("*") if path.is_file()] == []
    moved.rename(given)
    assert restore(library, folder)


def test_library_is_there_under_another_name(tmp_path: Path) -> None:
    """What is loaded serves by its own name, whatever its file is called: the usual one is a link to it."""
    file, made, folder = tmp_path / "libloaded.so.1.2.3", tmp_path / "made.so", tmp_path / "folder"
    for output, others in ((file, ["-Wl,-soname,libloaded.so.1"]), (made, [file])):
        code = "int a;" if output == file else "extern int a; int b(void) { return a; }"
        command = ["gcc", "-shared", "-fPIC", "-x", "c", "-", "-x", "none", *map(str, others), "-o", str(output)]
        subprocess.run(command, input=code, text=True, check=True)
    register_folders({"mine": Folder(path=folder)})
    library = CompiledFile(root="folder:mine", path="ab/made.so", mode=0o755, content=made.read_bytes())
    with pytest.raises(CompilerError, match=r"needs libloaded\.so\.1, which is not here"):
        restore(library, folder)
    ctypes.CDLL(str(file))
    assert restore(library, folder)
