"""Folders of other compilers are found where their tools keep them, and what is new in them is used."""

import os
from pathlib import Path

import pytest

from megacache._compiler import Folder, file_roots, register_folders, roots, used_files
from megacache.errors import SettingsError


def folder_of(name: str) -> Path:
    """Register a folder that megacache knows; give its path."""
    register_folders({name: Folder()})
    found = roots.find(f"folder:{name}")
    assert found is not None
    return found.folder


@pytest.mark.parametrize(
    ("name", "variable", "usual"),
    [
        ("cpp_extension", "TORCH_EXTENSIONS_DIR", "home/.cache/torch_extensions"),
        ("cute_dsl", "CUTE_DSL_CACHE_DIR", "tmp/me/cutlass_python_cache"),
        ("deep_gemm", "DG_JIT_CACHE_DIR", "home/.deep_gemm"),
        ("flashinfer", "FLASHINFER_WORKSPACE_BASE", "home/.cache/flashinfer"),
        ("tilelang", "TILELANG_CACHE_DIR", "home/.tilelang/cache"),
    ],
)
def test_known_folder_is_that_of_its_tool(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, variable: str, usual: str
) -> None:
    """The folder is the one that the tool's variable names, or else its usual one."""
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USER", "me")
    monkeypatch.delenv(variable, raising=False)
    assert folder_of(name) == tmp_path / usual
    monkeypatch.setenv(variable, str(tmp_path / "named"))
    below = ".cache/flashinfer" if name == "flashinfer" else ""
    assert folder_of(name) == tmp_path / "named" / below


def test_folder_of_extensions_is_pytorchs_own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PyTorch names the same folder, with and without a variable for caches."""
    from torch.utils import cpp_extension

    monkeypatch.delenv("TORCH_EXTENSIONS_DIR", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    for variable in ("", str(tmp_path / "caches")):
        monkeypatch.setenv("XDG_CACHE_HOME", variable)
        if not variable:
            monkeypatch.delenv("XDG_CACHE_HOME")
        assert str(folder_of("cpp_extension")) == cpp_extension.get_default_build_root()


def test_facts_are_the_version_and_ones_own(tmp_path: Path) -> None:
    """A folder is guarded by the version of its package, if it is known, and by the facts that come with it."""
    register_folders({"tilelang": Folder(path=tmp_path), "mine": Folder(path=tmp_path, facts={"version": "3"})})
    assert roots.guard({}, ["folder:tilelang"]) == {"tilelang_version": ""}
    assert roots.guard({}, ["folder:mine"]) == {"mine_version": "3"}


@pytest.mark.parametrize(
    ("name", "folder", "why"),
    [
        ("unheard_of", Folder(), "is not known; give its path"),
        ("triton", Folder(), "it travels in any case"),
        ("vllm", Folder(path="/x"), "it travels in any case"),
        ("Bad name", Folder(path="/x"), "a name consists of"),
        ("../x", Folder(path="/x"), "a name consists of"),
    ],
)
def test_folder_that_means_nothing_is_refused(name: str, folder: Folder, why: str) -> None:
    """A name without a path has to be known, and no name hides one of megacache's own."""
    with pytest.raises(SettingsError, match=why):
        register_folders({name: folder})


def test_only_what_is_new_travels(tmp_path: Path) -> None:
    """Files that were there before this process do not travel, nor what a tool needs only while it works."""
    register_folders({"mine": Folder(path=tmp_path)})
    names = ["a/new.cubin", "a/source.cu", "top.mlir"]
    left = ["a/old.cubin", "a/kernel.lock", "lock", "tool.log", ".staging/x.so", "tmp/x.cubin", "tmp.pid_1/x.mlir"]
    for name in (*names, *left):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.utime(tmp_path / "a" / "old.cubin", (1, 1))
    (tmp_path / "a" / "link.so").symlink_to(tmp_path / "top.mlir")
    found = {one.path: one.read() for one in used_files((), file_roots(None)) if one.root == "folder:mine"}
    assert sorted(path for path, file in found.items() if file) == names


def test_what_lies_beside_a_loaded_library_travels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A library that is loaded is used however old it is, with the files beside it, but not all of a flat folder."""
    register_folders({"mine": Folder(path=tmp_path)})
    for name in ("a/kernel.so", "a/params.json", "b/other.so", "flat.so", "unused.so"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (1, 1))
    loaded = [tmp_path / "a" / "kernel.so", tmp_path / "flat.so"]
    monkeypatch.setattr("megacache._compiler.folders.mapped_files", lambda: iter(loaded))
    found = [one.path for one in used_files((), file_roots(None)) if one.root == "folder:mine"]
    assert found == ["a/kernel.so", "a/params.json", "flat.so"]
