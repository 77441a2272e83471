"""A marker accuses what a process had loaded when it died, for an hour, and nothing else."""

import json
import os
import shutil
import tempfile
import time
from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path

import pytest

from megacache._cache.crash_guard import Markers
from megacache._cache.crash_guard import markers as markers_module
from megacache._cache.crash_guard.markers import SUSPICION_SECONDS, Suspect
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
GUILTY = replace(ONE, alone=True)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Name a folder for markers."""
    return tmp_path / "starts"


def leave_marker(
    folder: Path, *loads: Suspect, blind: bool = False, reason: bytes = b"Fatal Python error: Aborted"
) -> Path:
    """Leave what a process leaves that looks for suspects, loads and dies."""
    before = set(folder.glob("*"))
    markers = Markers(folder)
    markers.suspects()
    own = markers.put_up(loads or [ONE], blind=blind)
    os.write(own.descriptor, reason)
    own.leave()
    (path,) = set(folder.iterdir()) - before
    return path


def test_marker_accuses_once_it_is_not_locked(folder: Path) -> None:
    """As long as the process holds the lock its bundles are fine, for itself and for others."""
    markers = Markers(folder)
    own = markers.put_up([ONE], blind=False)
    os.write(own.descriptor, b"Fatal Python error: Aborted")
    assert markers.suspects() == Markers(folder).suspects() == {}
    own.leave()
    assert Markers(folder).suspects() == {ONE.bundle: GUILTY}


def test_marker_without_a_reason_accuses_nobody(folder: Path) -> None:
    """What is killed from outside leaves no reason, however often."""
    leave_marker(folder, reason=b"")
    leave_marker(folder, reason=b"")
    assert Markers(folder).suspects() == {}


def test_blind_markers_accuse_what_two_starts_in_a_row_had_loaded(folder: Path) -> None:
    """Where no reason could be left one death may have come from outside; the second one of a bundle is a suspicion."""
    leave_marker(folder, OTHER, ONE, reason=b"", blind=True)
    assert Markers(folder).suspects() == {}
    assert list(Markers(folder).to_clear()) == []
    leave_marker(folder, reason=b"", blind=True)
    assert Markers(folder).suspects() == {ONE.bundle: ONE}
    assert list(Markers(folder).to_clear()) == [ONE]


def test_one_of_several_bundles_is_not_accused_alone(folder: Path) -> None:
    """All that a process had loaded is left out, and none of it is known to be what it died of."""
    leave_marker(folder, ONE, OTHER)
    assert Markers(folder).suspects() == {ONE.bundle: ONE, OTHER.bundle: OTHER}
    leave_marker(folder, ONE)
    leave_marker(folder, OTHER, ONE)
    assert Markers(folder).suspects() == {ONE.bundle: GUILTY, OTHER.bundle: OTHER}


def test_suspects_are_cleared_once(folder: Path) -> None:
    """One process is told what to take out of PyTorch's folders; for all of them it goes on to be a suspect."""
    leave_marker(folder)
    markers = Markers(folder)
    assert [list(markers.to_clear()), list(Markers(folder).to_clear())] == [[GUILTY], []]
    assert Markers(folder).suspects() == {ONE.bundle: GUILTY}


def test_start_that_listed_before_another_has_cleared_is_warned(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A marker that another process takes on between the listing and the reading accuses all the same."""
    leave_marker(folder)
    opened = markers_module._opened

    def late(path: Path) -> AbstractContextManager[int]:
        monkeypatch.setattr("megacache._cache.crash_guard.markers._opened", opened)
        assert list(Markers(folder).to_clear()) == [GUILTY]
        return opened(path)

    monkeypatch.setattr("megacache._cache.crash_guard.markers._opened", late)
    assert Markers(folder).suspects() == {ONE.bundle: GUILTY}


def test_suspect_is_cleared_before_it_is_said_to_be(folder: Path) -> None:
    """While one process is at it, or was killed at it, the next one does the work, and none takes it for done."""
    leave_marker(folder)
    begun = Markers(folder).to_clear()
    assert next(begun) == GUILTY
    assert list(Markers(folder).to_clear()) == [GUILTY]
    assert list(begun) == []
    assert Markers(folder).suspects() == {ONE.bundle: GUILTY}


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


def test_suspicion_ends(folder: Path) -> None:
    """After an hour a bundle gets another chance, and the old marker is cleared away."""
    path = leave_marker(folder)
    then = time.time() - SUSPICION_SECONDS - 1
    os.utime(path, (then, then))
    assert Markers(folder).suspects() == {}
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"[1]",
        b'{"loads": 1}',
        b'{"blind": true, "loads": [{"bundle": "x"}]}',
        b'{"blind": true, "loads": []}',
        b"\xff",
    ],
)
def test_marker_that_is_none_is_passed_over(folder: Path, content: bytes) -> None:
    """What cannot be read accuses nobody."""
    folder.mkdir()
    (folder / "x.json").write_bytes(content)
    assert Markers(folder).suspects() == {}


def test_marker_accuses_only_what_can_be_loaded(folder: Path) -> None:
    """Kinds, keys and paths that no warm start would put in place are left out of what is read."""
    folder.mkdir()
    loads = [{"bundle": "x", "artifacts": [["inductor", "../x"], ["evil", "a"]], "files": [["inductor", "../x.so"]]}]
    (folder / "x.json").write_text(json.dumps({"blind": True, "again": ["x"], "loads": loads}))
    assert Markers(folder).suspects() == {"x": Suspect(bundle="x", artifacts=(), files=())}


def test_nothing_is_left_where_no_marker_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses half way leaves neither a file nor an open one."""

    def refuse(*_: object) -> None:
        raise OSError

    markers, before = Markers(tmp_path), len(list(Path("/proc/self/fd").iterdir()))
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError):  # noqa: PT011 - whatever the disk says
        markers.put_up([ONE], blind=False)
    assert list(tmp_path.iterdir()) == []
    assert len(list(Path("/proc/self/fd").iterdir())) == before
