"""A build travels as one file, and ninja finds nothing to do in it as long as its inputs are the same."""

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from megacache._bundle import Node, pack
from megacache._compiler import Folder, Located, build_of, register_folders, remove, restore
from megacache._compiler.builds import build_folder, find_build, pack_build, unpack_build
from megacache.errors import CompilerError, UntrustedError

# What a compiler does: an output, and a list of the headers that it has read.
RULES = """
rule copy
  command = cat $in {header} > $out && echo "$out: $in {header}" > $out.d
  depfile = $out.d
  deps = gcc
build a.o: copy main.cpp | {implicit}
build all.so: copy a.o
"""


class Project:
    """A folder in which ninja builds."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "unit"
        self.header, self.implicit = folder / "a.h", folder / "c.h"
        self.folder.mkdir()
        for path in (self.header, self.implicit, self.folder / "main.cpp"):
            path.write_text(path.name)
        (self.folder / "build.ninja").write_text(RULES.format(header=self.header, implicit=self.implicit))

    def ninja(self) -> bool:
        """Let ninja build; tell whether it had something to do."""
        done = subprocess.run(["ninja"], cwd=self.folder, capture_output=True, text=True, timeout=60, check=True)
        return "no work to do" not in done.stdout

    def packed(self) -> bytes:
        """Write the build as one file."""
        build = find_build(self.folder)
        assert build is not None
        return pack_build(build)

    def restored(self, content: bytes) -> bool:
        """Put a build where this one is."""
        return unpack_build(content, self.folder, self.folder)


@pytest.fixture
def project(tmp_path: Path) -> Project:
    """Build something."""
    made = Project(tmp_path)
    assert made.ninja()
    return made


def test_nothing_is_left_to_do(project: Project) -> None:
    """Inputs that are newer than what was published, and the same, are not built again; the name tells a build."""
    content, name = project.packed(), find_build(project.folder)
    shutil.rmtree(project.folder)
    project.header.write_text(project.header.read_text())
    assert project.restored(content)
    assert not project.ninja()
    assert (find_build(project.folder), project.packed()) == (name, content)
    assert name is not None
    assert build_folder(str(name)) == str(project.folder)
    assert build_folder("ab/kernel.build") is None


@pytest.mark.parametrize("output", ["a.o", "{}/a.o"])
def test_outputs_do_not_name_a_build(project: Project, output: str) -> None:
    """Two that compile the same give the build one name, whatever their compilers write, and however ninja has it."""
    rules = (project.folder / "build.ninja").read_text().replace("a.o", output.format(project.folder))
    (project.folder / "build.ninja").write_text(rules)
    project.ninja()
    before = find_build(project.folder)
    (project.folder / "a.o").write_text("otherwise")
    assert find_build(project.folder) == before


@pytest.mark.parametrize("name", ["header", "implicit", "own"])
def test_what_changes_afterwards_is_built_again(project: Project, name: str) -> None:
    """After a build was restored, ninja sees each change of an input, as it would of what it has built itself."""
    content, before = project.packed(), find_build(project.folder)
    shutil.rmtree(project.folder)
    project.restored(content)
    changed: Path = project.folder / "main.cpp" if name == "own" else getattr(project, name)
    changed.write_text("changed")
    assert project.ninja()
    assert find_build(project.folder) not in {None, before}


@pytest.mark.parametrize("name", ["header", "implicit"])
@pytest.mark.parametrize("change", [lambda path: path.write_text("changed"), Path.unlink], ids=["changed", "gone"])
def test_other_inputs_are_refused(project: Project, name: str, change: Callable[[Path], Any]) -> None:
    """Nothing is put in place if an input is another one here, even if it is older than the build."""
    content = project.packed()
    shutil.rmtree(project.folder)
    path: Path = getattr(project, name)
    change(path)
    if path.exists():
        os.utime(path, (1, 1))
    with pytest.raises(CompilerError, match="is not the one that it was built from"):
        project.restored(content)
    assert not project.folder.exists()


def test_folder_is_taken_only_if_it_is_empty(project: Project) -> None:
    """An empty folder becomes the build; one that holds anything, a file and a link stay, and nothing is left over."""
    content = project.packed()
    shutil.rmtree(project.folder)
    project.folder.mkdir()
    assert project.restored(content)
    shutil.rmtree(project.folder)
    project.folder.mkdir()
    (project.folder / "lock").touch()
    assert not project.restored(content)
    shutil.rmtree(project.folder)
    project.folder.symlink_to(project.header.parent)
    assert not project.restored(content)
    assert sorted(path.name for path in project.header.parent.iterdir()) == ["a.h", "c.h", "unit"]


def test_what_is_not_finished_does_not_travel(project: Project) -> None:
    """A folder in which somebody builds has no name, nor has one without a log or with a log of another form."""
    (project.folder / "lock").touch()
    assert find_build(project.folder) is None
    (project.folder / "lock").unlink()
    log = project.folder / ".ninja_log"
    log.write_text(log.read_text().replace("# ninja log v", "# ninja log v99"))
    assert find_build(project.folder) is None
    log.unlink()
    assert find_build(project.folder) is None


def test_links_and_foreign_names_do_not_travel(project: Project) -> None:
    """Only regular files with plain names are packed."""
    (project.folder / "link.so").symlink_to(project.header)
    (project.folder / ".hidden").touch()
    (project.folder / "a name").touch()
    names = [item.leading(3)[0].text() for item in Node.unpack(project.packed(), "build").field("files").items()]
    assert names == [".ninja_deps", ".ninja_log", "a.o", "all.so", "build.ninja", "main.cpp"]


def forged(project: Project, **changes: Any) -> bytes:
    """Change what a build says."""
    return pack({**Node.unpack(project.packed(), "build").value, **changes})


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"path": "/another"}, CompilerError),
        ({"inputs": [["/dev/stdin", "0" * 64]]}, CompilerError),
        ({"files": [["../escaped", False, b""]]}, UntrustedError),
        ({"files": [["/escaped", False, b""]]}, UntrustedError),
        ({"files": [["a/../../escaped", False, b""]]}, UntrustedError),
        ({"files": [[".bashrc", False, b""]]}, UntrustedError),
        ({"files": [["a\0b", False, b""]]}, UntrustedError),
        ({"files": [["a", False, "text"]]}, UntrustedError),
        ({"files": [["a", False]]}, UntrustedError),
        ({"files": None}, UntrustedError),
    ],
)
def test_nothing_else_is_unpacked(project: Project, changes: dict[str, Any], error: type[Exception]) -> None:
    """A build that names other places, or is none at all, is refused, and nothing is written."""
    content = forged(project, **changes)
    shutil.rmtree(project.folder)
    with pytest.raises(error):
        project.restored(content)
    assert sorted(path.name for path in project.header.parent.iterdir()) == ["a.h", "c.h"]


def test_modes_are_plain(project: Project) -> None:
    """A file is executable or not, and nothing else is taken over."""
    (project.folder / "all.so").chmod(0o4777)
    content = project.packed()
    shutil.rmtree(project.folder)
    project.restored(content)
    assert (project.folder / "all.so").stat().st_mode & 0o7777 == 0o755
    assert (project.folder / "main.cpp").stat().st_mode & 0o7777 == 0o644


def test_build_is_restored_and_removed_as_a_file_of_its_root(project: Project, tmp_path: Path) -> None:
    """Once a build is removed, ninja builds again; one that has been replaced cannot be read; no link is followed."""
    register_folders({"mine": Folder(path=tmp_path)})
    build = find_build(project.folder)
    assert build is not None
    located = Located(root="folder:mine", path=build.name, folder=tmp_path)
    file = located.read()
    assert file is not None
    shutil.rmtree(project.folder)
    assert restore(file, tmp_path)
    assert not project.ninja()
    remove("folder:mine", build.name, tmp_path)
    assert located.read() is None
    assert project.ninja()
    shutil.rmtree(project.folder)
    outside = tmp_path / "outside"
    outside.mkdir()
    project.folder.symlink_to(outside)
    assert not restore(file, tmp_path)
    with pytest.raises(OSError, match="unit"):
        remove("folder:mine", build.name, tmp_path)
    assert list(outside.iterdir()) == []


def test_file_of_another_root_is_no_build(tmp_path: Path) -> None:
    """Only in the cache of another compiler is a name that of a build."""
    register_folders({"mine": Folder(path=tmp_path)})
    name = f"unit.{'0' * 16}.build"
    assert (build_of("folder:mine", name), build_of("vllm", name)) == ("unit", None)
