"""A roll tells what a living process has loaded, and nothing of one that is gone."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from megacache._cache.crash_guard import CrashGuard
from megacache._cache.crash_guard.rolls import Rolls


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Name a folder for rolls."""
    return tmp_path / "starts"


def test_roll_counts_as_long_as_it_is_locked(folder: Path) -> None:
    """What is written on a roll is loaded by somebody who lives; the next start removes that of who does not."""
    assert Rolls(folder).loaded_by_the_living() == frozenset()
    guard = CrashGuard(folder)
    for name in ("one", "other", "one"):
        guard.sign_in(name)
    (roll,) = folder.iterdir()
    assert roll.read_text() == "one\nother\n"
    other = Rolls(folder).begin()
    os.write(other.descriptor, b"third\n")
    assert Rolls(folder).loaded_by_the_living() == {"one", "other", "third"}
    other.leave()
    assert Rolls(folder).loaded_by_the_living() == {"one", "other"}
    Rolls(folder).clear_old()
    assert list(folder.iterdir()) == [roll]
    guard.sign_out()
    assert list(folder.iterdir()) == []


def test_roll_is_that_of_a_forked_child_too(folder: Path) -> None:
    """A child needs what its parent has loaded, even after that has been killed, and does not remove the roll."""
    guard = CrashGuard(folder)
    guard.sign_in("one")
    assert _in_child(guard.sign_out) == 0
    assert Rolls(folder).loaded_by_the_living() == {"one"}
    guard.sign_out()


def _in_child(do: Callable[[], None]) -> int:
    child = os.fork()
    if not child:
        do()
        os._exit(0)
    return os.waitpid(child, 0)[1]
