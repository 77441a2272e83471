"""The compiled files of a bundle come and go as one: none that names another is there without it."""

from collections.abc import Callable
from pathlib import Path

import pytest

from megacache import _compiler
from megacache._bundle import CompiledFile
from megacache._cache.compiled_files import Restoration
from megacache._runtime import Deadline
from tests.kit.builders import artifact, bundle

LIST, KERNEL, LAUNCHER, HELD = "KEY/__grp__k.json", "KEY/k.cubin", "KEY/launcher.so", "ab/k.main.so"


def triton_file(path: str) -> CompiledFile:
    """Make a file of a Triton kernel."""
    content = b"{}" if path.endswith(".json") else b"\x7fELF" + path.encode()
    return CompiledFile(root="triton", path=path, mode=0o644, content=content)


FILES = tuple(map(triton_file, (LIST, KERNEL, LAUNCHER)))
MANIFEST = bundle([artifact()], files=FILES).manifest


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Name Triton's folder."""
    return tmp_path / "triton"


@pytest.fixture
def restoration(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Restoration:
    """Begin to restore files of Triton's into its folder."""
    monkeypatch.setattr(_compiler, "toolchain", lambda *_: {})
    monkeypatch.setattr(_compiler, "file_roots", lambda _: {"triton": (folder,)})
    found = Restoration()
    found.begin(None, Deadline.after(60), wanted=True)
    return found


def there(folder: Path) -> set[str]:
    """Name the files that are there."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_list_comes_after_the_files_that_it_names(restoration: Restoration, folder: Path) -> None:
    """However they are spread over chunks, a list is put in place when all of its bundle has come."""
    for file in FILES:
        restoration.accept(MANIFEST.bundle, [file])
    assert there(folder) == {KERNEL, LAUNCHER}
    assert set(restoration.settle(MANIFEST)) == set(MANIFEST.files.index)
    assert there(folder) == {LIST, KERNEL, LAUNCHER}
    assert (restoration.count, restoration.size) == (3, sum(len(file.content) for file in FILES))


def test_list_of_what_could_not_be_restored_stays_away(restoration: Restoration, folder: Path) -> None:
    """Where a file of a kernel has no place its list is not restored, so that Triton compiles the kernel."""
    (folder / KERNEL).mkdir(parents=True)
    restoration.accept(MANIFEST.bundle, FILES)
    restoration.settle(MANIFEST)
    assert there(folder) == {LAUNCHER}
    (warning,) = restoration.warnings
    assert f"1 compiled file of bundle {MANIFEST.bundle} could not be restored to {folder}" in warning


def test_bundle_that_is_not_loaded_leaves_no_file(restoration: Restoration, folder: Path) -> None:
    """What was written of it is removed; what was there before stays."""
    _compiler.restore(FILES[1], folder)
    restoration.accept(MANIFEST.bundle, FILES)
    restoration.abandon(MANIFEST.bundle)
    assert there(folder) == {KERNEL}
    assert restoration.count == 0


def remove_by_name(restoration: Restoration, *, loaded: bool) -> None:
    """Remove files as those of a suspect."""
    restoration.remove([("triton", path) for path in (LIST, KERNEL, HELD)], loaded=loaded)


def remove_by_content(restoration: Restoration, *, loaded: bool) -> None:
    """Remove files as those of a bundle in quarantine."""
    files = bundle([artifact()], files=[triton_file(path) for path in (LIST, KERNEL, HELD)])
    restoration.remove_exactly(files.manifest.files.index, loaded=loaded)


@pytest.mark.parametrize("remove", [remove_by_name, remove_by_content])
def test_files_of_the_living_stay(remove: Callable[..., None], restoration: Restoration, folder: Path) -> None:
    """Of what a living process may open only that is removed which it holds in memory: libraries of kernels."""
    for path in (LIST, KERNEL, HELD):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(triton_file(path).content)
    remove(restoration, loaded=True)
    assert there(folder) == {LIST, KERNEL}
    remove(restoration, loaded=False)
    assert there(folder) == set()
