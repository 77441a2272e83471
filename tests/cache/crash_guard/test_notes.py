"""A note says that a bundle has been cleared, until it is loaded again."""

from pathlib import Path

import pytest

from megacache._cache.crash_guard.notes import Notes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Name a folder for notes."""
    return tmp_path / "starts"


def test_note_counts_until_it_is_forgotten(folder: Path) -> None:
    """It is about one bundle; without a folder there is none."""
    notes = Notes(folder)
    assert not notes.is_cleared("x")
    notes.note("x")
    assert (notes.is_cleared("x"), notes.is_cleared("y")) == (True, False)
    notes.forget("x")
    notes.forget("x")
    assert not notes.is_cleared("x")


def test_note_follows_no_link(folder: Path, tmp_path: Path) -> None:
    """A link in the place of a note makes no file where it leads."""
    folder.mkdir()
    (folder / "x.gone").symlink_to(tmp_path / "made")
    Notes(folder).note("x")
    assert not (tmp_path / "made").exists()
