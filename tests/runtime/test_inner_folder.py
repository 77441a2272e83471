"""What is done in a folder below another is done in that one, whatever becomes of the way to it."""

import os
from pathlib import Path

import pytest

from megacache._runtime import inner_folder

STRANGER = 65534


def test_folder_stays_itself(tmp_path: Path) -> None:
    """One that is moved away, and a link put in its place, is still the one that was entered."""
    (tmp_path / "outside").mkdir()
    with inner_folder(tmp_path, "a", "b", create=True) as folder:
        (tmp_path / "a").rename(tmp_path / "moved")
        (tmp_path / "a").symlink_to("outside")
        (tmp_path / "outside/b").mkdir()
        (folder / "file").write_text("x")
        assert [path.name for path in folder.iterdir()] == ["file"]
    assert (tmp_path / "moved/b/file").read_text() == "x"
    assert list((tmp_path / "outside/b").iterdir()) == []


@pytest.mark.parametrize("link", ["a", "a/b"])
@pytest.mark.parametrize("create", [False, True])
def test_link_is_not_followed(link: str, create: bool, tmp_path: Path) -> None:
    """A link anywhere below the first folder is no way, even if it leads back; the first may be one."""
    base, real = tmp_path / "base", tmp_path / "real"
    (real / "other/b").mkdir(parents=True)
    base.symlink_to(real)
    (real / link).parent.mkdir(exist_ok=True)
    (real / link).symlink_to(real / "other")
    with pytest.raises(OSError), inner_folder(base, "a", "b", create=create):  # noqa: PT011 - whatever the system says
        pass
    with inner_folder(base, "other", "b", create=create) as folder:
        assert folder.samefile(real / "other/b")


def test_missing_folder_is_made_if_asked(tmp_path: Path) -> None:
    """One that is private is closed to others; without being asked nothing is made."""
    with pytest.raises(FileNotFoundError), inner_folder(tmp_path, "a"):
        pass
    with inner_folder(tmp_path / "new", "a", create=True, private=True) as folder:
        assert folder.stat().st_mode & 0o777 == 0o700


def test_folder_that_others_write_to_is_not_private(tmp_path: Path) -> None:
    """What lies in it may be anybody's."""
    (tmp_path / "a").mkdir()
    (tmp_path / "a").chmod(0o777)
    with pytest.raises(PermissionError), inner_folder(tmp_path, "a", private=True):
        pass
    with inner_folder(tmp_path, "a"):
        pass


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a folder away")
def test_folder_of_another_user_is_not_entered(tmp_path: Path) -> None:
    """It is, if all that it lies in is that user's as well: whoever chose that folder trusts them."""
    (tmp_path / "a").mkdir()
    os.chown(tmp_path / "a", STRANGER, STRANGER)
    with pytest.raises(PermissionError), inner_folder(tmp_path, "a"):
        pass
    os.chown(tmp_path, STRANGER, STRANGER)
    with inner_folder(tmp_path, "a"):
        pass


def test_no_descriptor_is_left(tmp_path: Path) -> None:
    """Neither a way that was found nor one that was not leaves anything open."""
    (tmp_path / "link").symlink_to("nowhere")
    before = len(list(Path("/proc/self/fd").iterdir()))
    for names in (("a", "b"), ("a", "link"), ("link",)):
        try:
            with inner_folder(tmp_path, *names, create=True):
                pass
        except OSError:
            continue
    assert len(list(Path("/proc/self/fd").iterdir())) == before
