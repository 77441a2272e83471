"""A file on a local disk appears whole, once, or not at all."""

import errno
import multiprocessing
import os
import signal
import stat
import subprocess
import sys
import threading
from multiprocessing.synchronize import Barrier
from pathlib import Path
from typing import Any

import pytest

from megacache._runtime import create_file, list_files

ROUNDS = 200

KILLED = """
import os, sys, time
from pathlib import Path
from megacache._runtime import create_file

def stop(*_):
    print("stopped", flush=True)
    time.sleep(600)

setattr(os, sys.argv[2], stop)
create_file(Path(sys.argv[1]), b"x" * 100_000)
"""


def content(writer: int) -> bytes:
    """Give each writer a content of its own, long enough to be torn."""
    return bytes([writer + 1]) * 50_000


def names(folder: Path) -> list[str]:
    """Name everything in a folder, hidden files included."""
    return sorted(path.name for path in folder.iterdir())


def race(folder: Path, writer: int, meeting: "Barrier | threading.Barrier") -> None:
    """Create one file a round together with the other writers; leave a list of the rounds that were won."""
    won = []
    for number in range(ROUNDS):
        meeting.wait(120)
        try:
            create_file(folder / f"round-{number}", content(writer))
        except FileExistsError:
            continue
        won.append(str(number))
    folder.joinpath(f"writer-{writer}").write_text(" ".join(won))


def check(folder: Path, writers: int) -> None:
    """Check that each round has one winner, whose content is there whole, and that nothing else is left."""
    won = {n: folder.joinpath(f"writer-{n}").read_text().split() for n in range(writers)}
    assert sorted(int(number) for rounds in won.values() for number in rounds) == list(range(ROUNDS))
    for writer, rounds in won.items():
        for number in rounds:
            assert folder.joinpath(f"round-{number}").read_bytes() == content(writer)
    assert [name for name in names(folder) if not name.startswith(("round-", "writer-"))] == []


def test_files_are_listed_and_nothing_else(tmp_path: Path) -> None:
    """Regular files below a folder have their path and size; folders, links and what is not there have none."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    (tmp_path / "a" / "b" / "file").write_bytes(b"12345")
    (tmp_path / "link").symlink_to(tmp_path / "a" / "b" / "file")
    assert [found[:2] for found in list_files(tmp_path)] == [("a/b/file", 5)]
    assert list(list_files(tmp_path / "nothing")) == []


@pytest.mark.parametrize("code", [errno.EACCES, errno.EIO, errno.ESTALE])
def test_folder_that_cannot_be_read_is_no_empty_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """A fault in one folder, however deep, is raised: what is below it may be all that there is."""
    (tmp_path / "a" / "b").mkdir(parents=True)
    real = os.scandir

    def scandir(path: str) -> Any:
        if str(path).endswith("b"):
            raise OSError(code, os.strerror(code), path)
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(OSError, match=os.strerror(code)):
        list(list_files(tmp_path))


def test_file_appears_with_its_folders(tmp_path: Path) -> None:
    """Missing folders are made; the file holds the bytes, and nothing lies beside it."""
    path = tmp_path / "a" / "b" / "file"
    create_file(path, b"content")
    assert path.read_bytes() == b"content"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("size", [0, 1, 5 << 20])
def test_content_is_on_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, size: int) -> None:
    """All bytes are synced, then the name is given, then the folder is synced; no descriptor stays open."""
    steps: list[object] = []
    sync, link = os.fsync, os.link

    def watched_sync(descriptor: int) -> None:
        told = os.fstat(descriptor)
        steps.append("folder" if stat.S_ISDIR(told.st_mode) else told.st_size)
        sync(descriptor)

    def watched_link(source: Path, target: Path) -> None:
        steps.append("name")
        link(source, target)

    monkeypatch.setattr(os, "fsync", watched_sync)
    monkeypatch.setattr(os, "link", watched_link)
    opened = len(names(Path("/proc/self/fd")))
    create_file(tmp_path / "file", bytes(size))
    assert steps == [size, "name", "folder"]
    assert (tmp_path / "file").read_bytes() == bytes(size)
    assert len(names(Path("/proc/self/fd"))) == opened


def test_name_that_is_taken_is_left_alone(tmp_path: Path) -> None:
    """An existing file is neither replaced nor touched, and nothing lies beside it afterwards."""
    path = tmp_path / "file"
    create_file(path, b"first")
    before = path.stat()
    with pytest.raises(FileExistsError):
        create_file(path, b"second")
    after = path.stat()
    assert (path.read_bytes(), after.st_ino, after.st_mtime_ns) == (b"first", before.st_ino, before.st_mtime_ns)
    assert names(tmp_path) == ["file"]


def test_file_in_the_place_of_a_folder_is_no_taken_name(tmp_path: Path) -> None:
    """Where the folder should be there is a file: that is a fault, and must not look like success of another writer."""
    (tmp_path / "chunks").touch()
    with pytest.raises(OSError, match="chunks") as caught:
        create_file(tmp_path / "chunks" / "file", b"content")
    assert not isinstance(caught.value, FileExistsError)


def test_one_of_16_threads_wins(tmp_path: Path) -> None:
    """Of threads that create the same name at once exactly one wins, in every round."""
    meeting = threading.Barrier(16)
    threads = [threading.Thread(target=race, args=[tmp_path, n, meeting]) for n in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    check(tmp_path, 16)


def test_one_of_8_processes_wins(tmp_path: Path) -> None:
    """Of processes that create the same name at once exactly one wins, in every round."""
    context = multiprocessing.get_context("spawn")
    meeting = context.Barrier(8)
    processes = [context.Process(target=race, args=[tmp_path, n, meeting]) for n in range(8)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(120)
    assert [process.exitcode for process in processes] == [0] * 8
    check(tmp_path, 8)


@pytest.mark.parametrize("code", [errno.EPERM, errno.ENOTSUP, errno.ENOSYS])
def test_mount_without_links_gets_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int) -> None:
    """Where hard links are not supported the file is renamed into its place, whole and with nothing beside it."""

    def refuse(*_: object) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "link", refuse)
    create_file(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    with pytest.raises(FileExistsError):
        create_file(tmp_path / "file", b"other")
    assert names(tmp_path) == ["file"]


def test_link_that_was_made_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """NFS may repeat a request whose answer was lost and say that the name is taken: by this very file."""
    link = os.link

    def link_twice(source: Path, target: Path) -> None:
        link(source, target)
        link(source, target)

    monkeypatch.setattr(os, "link", link_twice)
    create_file(tmp_path / "file", b"content")
    assert (tmp_path / "file").read_bytes() == b"content"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_failure_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    """If the disk fails on the way the error is told, and neither the file nor a part of it is left."""

    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, step, fail)
    with pytest.raises(OSError, match="No space left"):
        create_file(tmp_path / "file", b"content")
    assert names(tmp_path) == []


@pytest.mark.parametrize("step", ["fsync", "link"])
def test_killed_writer_leaves_no_visible_name(tmp_path: Path, step: str) -> None:
    """A writer that is killed after writing leaves a hidden file at most, and the next writer succeeds."""
    path = tmp_path / "file"
    with subprocess.Popen([sys.executable, "-c", KILLED, str(path), step], stdout=subprocess.PIPE) as writer:
        assert writer.stdout is not None
        assert writer.stdout.readline() == b"stopped\n"
        writer.kill()
    assert writer.returncode == -signal.SIGKILL
    assert [name for name in names(tmp_path) if not name.startswith(".")] == []
    create_file(path, b"content")
    assert path.read_bytes() == b"content"
