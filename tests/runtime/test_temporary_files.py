"""Files are written under a hidden name, and what killed writers left is cleared away."""

import os
import time
from pathlib import Path

import pytest

from megacache._compiler import restore
from megacache._runtime import create_file, temporary_beside, write_whole
from tests.kit.builders import compiled_file

LEFT = [f".{'0a' * 16}.tmp", f".{'b' * 64}.zst.{'1c' * 16}.tmp"]
FOREIGN = [".123.456.tmp", f"{'0a' * 16}.tmp", f".{'0a' * 16}", "kernel.so"]
DAY = 24 * 3600


def age(path: Path, seconds: float) -> Path:
    """Make a file that was written some time ago."""
    path.write_bytes(b"half")
    then = time.time() - seconds
    os.utime(path, (then, then))
    return path


def test_nothing_is_left(tmp_path: Path) -> None:
    """The file is gone after the block, whether it succeeds or not."""
    with temporary_beside(tmp_path / "file") as temporary:
        assert [temporary] == list(tmp_path.iterdir())
        assert temporary.name.startswith(".")
    with pytest.raises(ZeroDivisionError), temporary_beside(tmp_path / "file"):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", LEFT)
def test_leftovers_of_a_day_ago_are_removed(tmp_path: Path, name: str) -> None:
    """What a writer that was killed left goes once it is a day old; what may still be written stays."""
    (tmp_path / "old").mkdir()
    (tmp_path / "young").mkdir()
    old, young = age(tmp_path / "old" / name, DAY + 60), age(tmp_path / "young" / name, DAY - 60)
    for path in (old, young):
        create_file(path.with_name("file"), b"content")
    assert not old.exists()
    assert young.exists()


@pytest.mark.parametrize("name", FOREIGN)
def test_files_of_others_stay(tmp_path: Path, name: str) -> None:
    """However old it is, a file that megacache did not write is left alone: PyTorch's own temporary ones as well."""
    (tmp_path / "ab").mkdir()
    path = age(tmp_path / "ab" / name, 10 * DAY)
    restore(compiled_file("ab/library.so"), tmp_path)
    assert path.exists()


def test_folder_is_looked_through_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A process looks for leftovers when it first writes into a folder, and not at each file."""
    create_file(tmp_path / "one", b"content")
    monkeypatch.setattr(Path, "iterdir", lambda _: pytest.fail("looked again"))
    create_file(tmp_path / "two", b"content")


def test_file_is_replaced_or_left_as_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is written takes the place of what was there; if it cannot be, that stays, and nothing beside it."""

    def refuse(*_: object) -> None:
        raise OSError

    path = tmp_path / "file"
    write_whole(path, b"one")
    write_whole(path, b"two")
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError):  # noqa: PT011 - whatever the disk says
        write_whole(path, b"three")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]
