"""A marker accuses what a process had loaded when it died, for an hour, and nothing else."""

import json
import os
import time
from pathlib import Path

import pytest

from megacache._markers import SUSPICION_SECONDS, Markers, Suspect
from tests.builders import artifact, bundle

ONE = Suspect.of(bundle([artifact("a")]).manifest)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Name a folder for markers."""
    return tmp_path / "starts"


def leave_marker(folder: Path, *, blind: bool = False, reason: bytes = b"Fatal Python error: Aborted") -> Path:
    """Leave what a process leaves that dies."""
    markers = Markers(folder)
    os.write(markers.put_up([ONE], blind=blind), reason)
    markers.leave()
    (path,) = folder.iterdir()
    return path


def test_marker_accuses_once_it_is_not_locked(folder: Path) -> None:
    """As long as the process holds the lock its bundles are fine, for itself and for others."""
    markers = Markers(folder)
    os.write(markers.put_up([ONE], blind=False), b"Fatal Python error: Aborted")
    assert markers.suspects() == Markers(folder).suspects() == {}
    markers.leave()
    assert Markers(folder).suspects() == {ONE.bundle: ONE}


def test_marker_without_a_reason_accuses_nobody_unless_it_is_blind(folder: Path) -> None:
    """What is killed from outside leaves no reason, and is only a suspect where none could be left."""
    leave_marker(folder, reason=b"").unlink()
    assert Markers(folder).suspects() == {}
    leave_marker(folder, reason=b"", blind=True)
    assert Markers(folder).suspects() == {ONE.bundle: ONE}


def test_suspects_are_cleared_once(folder: Path) -> None:
    """One process is told what to take out of PyTorch's folders; for all of them it goes on to be a suspect."""
    leave_marker(folder)
    markers = Markers(folder)
    assert [list(markers.to_clear()), list(Markers(folder).to_clear())] == [[ONE], []]
    assert Markers(folder).suspects() == {ONE.bundle: ONE}


def test_suspicion_ends(folder: Path) -> None:
    """After an hour a bundle gets another chance, and the old marker is cleared away."""
    path = leave_marker(folder)
    then = time.time() - SUSPICION_SECONDS - 1
    os.utime(path, (then, then))
    assert Markers(folder).suspects() == {}
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    "content", [b"", b"{", b"[1]", b'{"loads": 1}', b'{"blind": true, "loads": [{"bundle": "x"}]}', b"\xff"]
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
    (folder / "x.json").write_text(json.dumps({"blind": True, "loads": loads}))
    assert Markers(folder).suspects() == {"x": Suspect(bundle="x", artifacts=(), files=())}


def test_nothing_is_left_where_no_marker_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that refuses half way leaves neither a file nor an open one."""

    def refuse(*_: object) -> None:
        raise OSError

    markers = Markers(tmp_path)
    monkeypatch.setattr(Path, "replace", refuse)
    with pytest.raises(OSError):  # noqa: PT011 - whatever the disk says
        markers.put_up([ONE], blind=False)
    assert not markers.is_up
    assert list(tmp_path.iterdir()) == []
