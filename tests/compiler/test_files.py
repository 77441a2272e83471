"""Compiled files are found, read and restored without leading anybody astray."""

import ctypes
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from megacache._bundle import CompiledFile, is_portable_file
from megacache._compiler import Located, remove, restore
from megacache._compiler.libraries import mapped_files
from megacache._runtime import temporary_beside
from megacache.errors import UntrustedError
from tests.kit.builders import compiled_file, noise

STRAY = [
    "",
    ".",
    "..",
    "../x.so",
    "ab/../../x.so",
    "/etc/x.so",
    "ab//x.so",
    "ab/",
    "ab\\x.so",
    "ab/x\0.so",
    "ab/x.so\n",
    "ab/.hidden.so",
    ".ab/x.so",
    "ab/x.py",
    "ab/x.cpp",
    "ab/x.so.lock",
    "ab/x",
    "a" * 256 + ".so",
    "/".join("abcdefghi") + "/x.so",
    "ab/библиотека.so",
]


@pytest.mark.parametrize("path", STRAY)
def test_stray_path_is_refused(path: str, tmp_path: Path) -> None:
    """A path that leaves its root, is hidden, or names what no compiler writes is refused, and nothing is written."""
    folder = tmp_path / "root"
    with pytest.raises(UntrustedError):
        restore(compiled_file(path), folder)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "path",
    [
        "ab/cabc.main.so",
        "triton/0/ABC/__triton_launcher.cpython-311-x86_64-linux-gnu.so",
        "KEY/kernel.cubin",
        "KEY/__grp__k.json",
    ],
)
def test_what_compilers_write_travels(path: str) -> None:
    """Names as PyTorch and Triton give them are accepted."""
    assert is_portable_file(path, "inductor")


def test_restored_file_is_whole_and_executable(tmp_path: Path) -> None:
    """A file gets its content and permission bits, and leaves no temporary file."""
    assert restore(compiled_file("ab/one.so", b"123", mode=0o755), tmp_path)
    assert restore(compiled_file("ab/two.json", b"{}", mode=0o640), tmp_path)
    assert {path.name: path.stat().st_mode & 0o7777 for path in (tmp_path / "ab").iterdir()} == {
        "one.so": 0o755,
        "two.json": 0o644,
    }
    assert (tmp_path / "ab/one.so").read_bytes() == b"123"


def test_no_file_gains_more_than_it_needs(tmp_path: Path) -> None:
    """Bits that would let others write, or lend rights, are dropped."""
    restore(compiled_file(mode=0o7777), tmp_path)
    assert (tmp_path / compiled_file().path).stat().st_mode & 0o7777 == 0o755


def test_only_an_equal_file_is_kept(tmp_path: Path) -> None:
    """A file with the same content stays; another one makes room, and a link, which leads nobody astray."""
    (tmp_path / "ab").mkdir()
    (tmp_path / "ab/one.so").write_bytes(b"other")
    (tmp_path / "ab/two.so").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "elsewhere").write_bytes(b"kept")
    for path in ("ab/one.so", "ab/two.so"):
        assert [restore(compiled_file(path, b"sound"), tmp_path) for _ in range(2)] == [True, False]
        assert (tmp_path / path).read_bytes() == b"sound"
        assert not (tmp_path / path).is_symlink()
    assert (tmp_path / "elsewhere").read_bytes() == b"kept"


def test_linked_folder_is_not_followed(tmp_path: Path) -> None:
    """A symbolic link below the root leads nowhere; the root itself may be one."""
    real, root = tmp_path / "real", tmp_path / "root"
    (real / "elsewhere").mkdir(parents=True)
    root.symlink_to(real)
    (real / "ab").symlink_to(tmp_path)
    with pytest.raises(UntrustedError, match="symbolic link"):
        restore(compiled_file("ab/one.so"), root)
    assert restore(compiled_file("cd/one.so"), root)
    assert (real / "cd/one.so").is_file()


def test_folder_that_becomes_a_link_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that somebody swaps for a link, once it was looked at, leads no file out of the root."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    (root / "ab").mkdir(parents=True)
    outside.mkdir()

    @contextmanager
    def swap_first(path: Path) -> Iterator[Path]:
        (root / "ab").rename(root / "moved")
        (root / "ab").symlink_to(outside)
        with temporary_beside(path) as temporary:
            yield temporary

    monkeypatch.setattr("megacache._compiler.files.temporary_beside", swap_first)
    restore(compiled_file("ab/one.so"), root)
    assert list(outside.iterdir()) == []
    assert [path.name for path in (root / "moved").iterdir()] == ["one.so"]


def test_linked_folder_loses_nothing(tmp_path: Path) -> None:
    """What lies behind a link is not removed."""
    root, outside = tmp_path / "root", tmp_path / "outside"
    root.mkdir()
    restore(compiled_file("one.so"), outside)
    (root / "ab").symlink_to(outside)
    with pytest.raises(UntrustedError, match="symbolic link"):
        remove("inductor", "ab/one.so", root)
    assert (outside / "one.so").is_file()


def test_many_restore_at_once(tmp_path: Path) -> None:
    """Concurrent restorers do not disturb one another, and a reader never sees half a file."""
    content = noise(1 << 20)
    wrote: list[bool] = []
    started = threading.Barrier(9)

    def run() -> None:
        started.wait()
        wrote.append(restore(compiled_file(content=content), tmp_path))

    threads = [threading.Thread(target=run) for _ in range(8)]
    for thread in threads:
        thread.start()
    started.wait()
    path = tmp_path / compiled_file().path
    while any(thread.is_alive() for thread in threads):
        assert not path.exists() or path.read_bytes() == content
    assert len(wrote) == 8
    assert True in wrote
    assert [path.name for path in path.parent.iterdir()] == [path.name]


def test_file_is_read_with_its_mode(tmp_path: Path) -> None:
    """What is read is what will be restored elsewhere."""
    restore(compiled_file("ab/one.so", b"123"), tmp_path)
    found = Located(root="inductor", path="ab/one.so", folder=tmp_path).read()
    assert found == CompiledFile(root="inductor", path="ab/one.so", mode=0o755, content=b"123")


@pytest.mark.parametrize("path", ["ab/gone.so", "ab/link.so", "ab/source.py", "ab/pipe.so"])
def test_what_cannot_travel_is_not_read(path: str, tmp_path: Path) -> None:
    """What is gone, is a link or a pipe, or is none that a reader would accept stays behind."""
    (tmp_path / "ab").mkdir()
    os.mkfifo(tmp_path / "ab/pipe.so")
    (tmp_path / "ab/source.py").touch()
    (tmp_path / "ab/link.so").symlink_to("source.py")
    assert Located(root="inductor", path=path, folder=tmp_path).read() is None


def test_list_of_a_kernels_files_moves_with_them(tmp_path: Path) -> None:
    """Triton's list of a kernel's files names their folder: it is the new one's after a move."""
    before, after = tmp_path / "before", tmp_path / "after"
    listed = b'{"child_paths": {"k.cubin": "%s/KEY/k.cubin"}}'
    (before / "KEY").mkdir(parents=True)
    (before / "KEY/__grp__k.json").write_bytes(listed % bytes(before))
    found = Located(root="triton", path="KEY/__grp__k.json", folder=before).read()
    assert found is not None
    assert bytes(before) not in found.content
    restore(found, after)
    assert (after / found.path).read_bytes() == listed % bytes(after)


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="this system does not tell what is mapped")
def test_loaded_library_is_found(tmp_path: Path) -> None:
    """A library counts once this process has loaded it; one that only lies there does not."""
    compiler = shutil.which("g++")
    assert compiler is not None
    loaded, idle = tmp_path / "loaded one.so", tmp_path / "idle.so"
    subprocess.run([compiler, "-shared", "-x", "c++", os.devnull, "-o", loaded], check=True)
    shutil.copy(loaded, idle)
    library = ctypes.CDLL(str(loaded))
    found = set(mapped_files())
    assert library is not None
    assert loaded in found
    assert idle not in found
