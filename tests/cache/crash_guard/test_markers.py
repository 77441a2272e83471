"""A marker accuses what a process had loaded when it died, for an hour, and nothing else."""

import json
import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from megacache._cache.crash_guard import Markers, locked_files
from megacache._cache.crash_guard.markers import SUSPICION_SECONDS, Suspect
from megacache._cache.crash_guard.notes import Notes
from tests.kit.builders import artifact, bundle
from tests.kit.processes import run_code

STRANGER = """
import os, sys, megacache
for folder in sys.argv[:0:-1]:
    if folder == sys.argv[1] and not os.getuid():
        os.setuid(65534)
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder
    print(megacache.warm(f"file://{sys.argv[1]}/store").status)
"""
"""Warm twice, the second time where another user was first."""

ONE = Suspect.of(bundle([artifact("a")]).manifest)
OTHER = Suspect.of(bundle([artifact("b")]).manifest)
NAME = f"{0:032x}.json"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Name a folder for markers."""
    return tmp_path / "starts"


def suspects(folder: Path) -> Mapping[str, Suspect]:
    """Give what the markers in a folder accuse."""
    return Markers(folder).deaths().suspects


def leave_marker(folder: Path, *loads: Suspect) -> Path:
    """Leave what a process leaves that looks back, loads and dies."""
    before = set(folder.glob("*"))
    markers = Markers(folder)
    markers.put_up(loads or [ONE], markers.deaths().recent()).leave()
    (path,) = set(folder.iterdir()) - before
    return path


def accuse(folder: Path) -> Path:
    """Leave what two processes leave that die of one bundle."""
    leave_marker(folder)
    return leave_marker(folder)


def test_marker_counts_once_it_is_not_locked(folder: Path) -> None:
    """As long as the process holds the lock its bundles are fine, for itself and for others."""
    leave_marker(folder)
    markers = Markers(folder)
    own = markers.put_up([ONE], markers.deaths().recent())
    assert suspects(folder) == {}
    own.leave()
    assert suspects(folder) == {ONE.bundle: ONE}


def test_two_deaths_in_a_row_accuse_what_both_had_loaded(folder: Path) -> None:
    """One death may have come from outside; the second one with the same bundle is a suspicion."""
    leave_marker(folder, OTHER, ONE)
    assert suspects(folder) == {}
    assert list(Markers(folder).to_clear()) == []
    leave_marker(folder)
    assert suspects(folder) == {ONE.bundle: ONE}
    assert list(Markers(folder).to_clear()) == [ONE]


def test_processes_that_die_together_are_one_death(folder: Path) -> None:
    """A process that began before another died had no warning, whatever it had loaded."""
    late = Markers(folder)
    before = late.deaths().recent()
    leave_marker(folder)
    late.put_up([ONE], before).leave()
    assert suspects(folder) == {}


def test_suspects_are_cleared_once(folder: Path) -> None:
    """One process is told what to take out of PyTorch's folders; for all of them it goes on to be a suspect."""
    accuse(folder)
    assert [list(Markers(folder).to_clear()), list(Markers(folder).to_clear())] == [[ONE], []]
    assert suspects(folder) == {ONE.bundle: ONE}


def test_start_that_listed_before_another_has_cleared_is_warned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A marker that another process takes on between the listing and the reading accuses all the same."""
    accuse(folder)
    opened = locked_files.opened

    def late(path: Path) -> AbstractContextManager[int]:
        monkeypatch.setattr("megacache._cache.crash_guard.markers.opened", opened)
        assert list(Markers(folder).to_clear()) == [ONE]
        return opened(path)

    monkeypatch.setattr("megacache._cache.crash_guard.markers.opened", late)
    assert suspects(folder) == {ONE.bundle: ONE}


def test_suspects_of_the_living_are_cleared_again(folder: Path) -> None:
    """What a living process has loaded may not be gone after the first time: the next start is told of it again."""
    accuse(folder)
    for _ in range(2):
        assert list(Markers(folder).to_clear({ONE.bundle})) == [ONE]
    assert [list(Markers(folder).to_clear()), list(Markers(folder).to_clear())] == [[ONE], []]


def test_suspect_is_cleared_before_it_is_said_to_be(folder: Path) -> None:
    """While one process is at it, or was killed at it, the next one does the work, and none takes it for done."""
    accuse(folder)
    begun = Markers(folder).to_clear()
    assert next(begun) == ONE
    assert list(Markers(folder).to_clear()) == [ONE]
    assert list(begun) == []
    assert suspects(folder) == {ONE.bundle: ONE}


def test_folder_of_another_user_holds_no_markers(tmp_path: Path) -> None:
    """Where nothing may be read or written a start goes on, and knows of no suspect."""
    place = Path(tempfile.mkdtemp())  # the folders of pytest are closed to other users
    (place / "megacache").mkdir(mode=0)
    (place / "store").mkdir()
    for path in (place, place / "store"):
        path.chmod(0o777)
    done = run_code(STRANGER, str(place), str(tmp_path))
    shutil.rmtree(place)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "miss\nmiss\n"


def test_folder_that_is_a_link_holds_no_markers(folder: Path, tmp_path: Path) -> None:
    """In a folder that all may write to, somebody may lead ours elsewhere: nothing there is read, made or removed."""
    elsewhere = tmp_path / "elsewhere"
    accuse(elsewhere)
    old = leave_marker(elsewhere)
    os.utime(old, (0, 0))
    before = sorted(elsewhere.iterdir())
    folder.symlink_to(elsewhere)
    markers, notes = Markers(folder), Notes(folder)
    markers.clear_old()
    notes.note("x")
    assert (markers.deaths().bundles, list(markers.to_clear()), notes.is_cleared("x")) == (frozenset(), [], False)
    with pytest.raises(OSError):  # noqa: PT011 - whatever the system says
        markers.put_up([ONE], ())
    assert sorted(elsewhere.iterdir()) == before


def test_folder_that_becomes_a_link_leads_nowhere(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is swapped for a link while it is cleared costs nothing where the link leads."""
    old = leave_marker(folder)
    os.utime(old, (0, 0))
    shutil.copytree(folder, tmp_path / "elsewhere")
    opened = locked_files.opened

    def swap_first(path: Path) -> AbstractContextManager[int]:
        folder.rename(tmp_path / "moved")
        folder.symlink_to(tmp_path / "elsewhere")
        return opened(path)

    monkeypatch.setattr("megacache._cache.crash_guard.markers.opened", swap_first)
    Markers(folder).clear_old()
    assert [path.name for path in (tmp_path / "elsewhere").iterdir()] == [old.name]
    assert list((tmp_path / "moved").iterdir()) == []


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_marker_of_another_user_accuses_nobody(folder: Path) -> None:
    """What another user says is not acted upon, and his marker is left alone."""
    path = accuse(folder)
    os.chown(path, 65534, 65534)
    assert suspects(folder) == {}
    os.utime(path, (0, 0))
    Markers(folder).clear_old()
    assert path.exists()


@pytest.mark.parametrize("hours", [-1, 1, 24 * 365], ids=["an hour ago", "in an hour", "in a year"])
def test_suspicion_ends(folder: Path, hours: int) -> None:
    """After an hour a bundle gets another chance; a clock that was wrong does not make it longer."""
    path = accuse(folder)
    then = time.time() + hours * (SUSPICION_SECONDS + 1)
    os.utime(path, (then, then))
    assert suspects(folder) == {}


def test_question_changes_nothing(folder: Path) -> None:
    """Old markers are removed when that is asked for; links, and files of another form, stay."""
    old, recent = leave_marker(folder), leave_marker(folder)
    (folder / "notes.json").write_text("mine")
    (folder / f"{1:032x}.json").symlink_to(folder / "notes.json")
    kept = {recent, folder / "notes.json", folder / f"{1:032x}.json"}
    for path in (old, folder / "notes.json"):
        os.utime(path, (0, 0))
    Markers(folder).deaths()
    assert set(folder.iterdir()) == kept | {old}
    Markers(folder).clear_old()
    assert set(folder.iterdir()) == kept


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b'{"loads": 1}',
        b'{"again": [], "loads": [{"bundle": "x"}]}',
        b'{"loads": []}',
        b"\xff",
    ],
)
def test_marker_that_is_none_is_passed_over(folder: Path, content: bytes) -> None:
    """What cannot be read accuses nobody."""
    folder.mkdir()
    (folder / NAME).write_bytes(content)
    assert suspects(folder) == {}


def test_marker_accuses_only_what_can_be_loaded(folder: Path) -> None:
    """Kinds, keys and paths that no warm start would put in place are left out of what is read."""
    folder.mkdir()
    loads = [{"bundle": "x", "artifacts": [["inductor", "../x"], ["evil", "a"]], "files": [["inductor", "../x.so"]]}]
    (folder / NAME).write_text(json.dumps({"again": ["x"], "loads": loads}))
    assert suspects(folder) == {"x": Suspect(bundle="x", artifacts=(), files=())}


def test_nothing_is_left_where_no_marker_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses half way leaves neither a file nor an open one."""

    def refuse(*_: object) -> None:
        raise OSError

    markers, before = Markers(tmp_path), len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError):  # noqa: PT011 - whatever the disk says
        markers.put_up([ONE], ())
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before
