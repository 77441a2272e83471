"""A disk that is full or may not be written to, under the store or under PyTorch's cache folder."""

import os
import re
from pathlib import Path

import pytest

from tests.kit.builders import artifacts, compiled_file, noise, open_store
from tests.kit.disks import fill, read_only, short_files, small_disk
from tests.kit.faults import PATIENT
from tests.kit.places import timed, verdicts
from tests.kit.torchless import Compiler

SIZE = 200_000
COMPILED = artifacts(4, size=50_000)
LIBRARIES = [compiled_file(f"ab/library{n}.so", noise(100_000, n)) for n in range(3)]
DISK = 1 << 20


def names(folder: Path) -> list[str]:
    """Name every file below a folder."""
    return sorted(path.name for path in folder.rglob("*") if path.is_file())


def check_nothing_visible(store: Path, reason: str, cause: str) -> None:
    """Check that the cause and the place were told, that no bundle is visible, and that no part of a file is left."""
    assert re.search(cause, reason), reason
    assert str(store) in reason
    assert verdicts(open_store(str(store))) == []
    assert not [name for name in names(store) if name.startswith(".") or name.endswith(".msgpack")]


def check_published(compiler: Compiler, store: Path) -> None:
    """Check that the same process now publishes all, soundly."""
    result = compiler.publish(str(store), {}, PATIENT)
    assert result.status == "published", result.reason
    assert [verdict.faults for verdict in verdicts(open_store(str(store)))] == [()]


def test_store_on_a_full_disk(tmp_path: Path, compiler: Compiler) -> None:
    """A publication to a full disk says so and leaves nothing; once there is space, the same process publishes."""
    compiler.compile(*COMPILED, files=LIBRARIES)
    with small_disk(tmp_path / "disk", DISK) as disk:
        (disk / "store").mkdir()
        filler = fill(disk)
        result = timed(lambda: compiler.publish(str(disk / "store"), {}, PATIENT), PATIENT)
        assert result.status == "unavailable"
        check_nothing_visible(disk / "store", result.reason, "No space left on device")
        filler.unlink()
        check_published(compiler, disk / "store")


def test_store_whose_disk_fills_up_on_the_way(tmp_path: Path, compiler: Compiler) -> None:
    """Where one chunk still fits and the next does not, no manifest is written; what is there serves the next try."""
    compiler.compile(*COMPILED, files=LIBRARIES)
    with small_disk(tmp_path / "disk", DISK) as disk:
        (disk / "reserve").write_bytes(bytes(DISK - 400_000))
        result = compiler.publish(str(disk / "store"), {}, PATIENT)
        assert result.status == "unavailable"
        check_nothing_visible(disk / "store", result.reason, "No space left on device")
        (disk / "reserve").unlink()
        check_published(compiler, disk / "store")


def test_store_with_a_quota(tmp_path: Path, compiler: Compiler) -> None:
    """A write that fails half-way leaves no half of a file."""
    compiler.compile(*COMPILED)
    with short_files(SIZE // 2):
        result = compiler.publish(str(tmp_path / "store"), {}, PATIENT)
    assert result.status == "unavailable"
    check_nothing_visible(tmp_path / "store", result.reason, "File too large")
    check_published(compiler, tmp_path / "store")


def test_store_that_may_not_be_written_to(tmp_path: Path, compiler: Compiler) -> None:
    """A read-only store is read as any other; a publication to it is `read_only`, and changes nothing."""
    store = tmp_path / "store"
    compiler.compile(*COMPILED, files=LIBRARIES)
    check_published(compiler, store)
    before = names(store)
    compiler.compile(*artifacts(1, seed=9))
    with read_only(store):
        warmed = compiler.warm(str(store), {}, PATIENT)
        refused = compiler.publish(str(store), {}, PATIENT)
    assert (warmed.status, warmed.files) == ("loaded", len(LIBRARIES))
    assert refused.status == "read_only"
    assert re.search("Read-only file system|Permission denied", refused.reason)
    assert str(store) in refused.reason
    assert names(store) == before
    assert compiler.publish(str(store), {}, PATIENT).status == "published"


@pytest.fixture
def published(tmp_path: Path, compiler: Compiler) -> str:
    """Publish artifacts and files."""
    compiler.compile(*COMPILED, files=LIBRARIES)
    check_published(compiler, tmp_path / "store")
    return str(tmp_path / "store")


def check_restored_in_part(compiler: Compiler, url: str, cause: str) -> None:
    """Check that artifacts were loaded, that what was not restored is told with its place, and that nothing is torn."""
    result = compiler.warm(url, {}, PATIENT)
    assert result.status == "loaded"
    (warning,) = result.warnings
    assert re.search(f"could not be restored to {compiler.folder}: .*({cause})", warning)
    assert check_whole(compiler.folder) == result.files < len(LIBRARIES)


def check_whole(folder: Path) -> int:
    """Check that every file in a cache folder is whole, and count them."""
    found = {name for name in names(folder) if name != "filler" and not name.endswith(".loaded")}
    whole = {Path(one.path).name for one in LIBRARIES if (folder / one.path).is_file()}
    assert found == whole
    assert all((folder / one.path).read_bytes() == one.content for one in LIBRARIES if (folder / one.path).is_file())
    return len(whole)


def check_restored(compiler: Compiler, url: str) -> None:
    """Check that the same process now restores all."""
    again = compiler.warm(url, {}, PATIENT)
    assert (again.status, again.files, again.warnings) == ("loaded", len(LIBRARIES), ())
    assert check_whole(compiler.folder) == len(LIBRARIES)


@pytest.mark.parametrize("reserve", [0, 150_000])
def test_cache_folder_on_a_full_disk(published: str, compiler: Compiler, reserve: int) -> None:
    """Artifacts are loaded without the files for which there is no space; with space, all are restored."""
    with small_disk(compiler.folder, DISK) as disk:
        filler = fill(disk)
        os.truncate(filler, filler.stat().st_size - reserve)
        check_restored_in_part(compiler, published, "No space left on device")
        filler.unlink()
        check_restored(compiler, published)


def test_cache_folder_with_a_quota(published: str, compiler: Compiler) -> None:
    """A file of which only half could be written is not there under its name."""
    with short_files(SIZE // 4):
        check_restored_in_part(compiler, published, "File too large")
    check_restored(compiler, published)


def test_cache_folder_that_may_not_be_written_to(published: str, compiler: Compiler) -> None:
    """Nothing can be restored, which is told; artifacts are handed to PyTorch all the same."""
    compiler.folder.mkdir()
    with read_only(compiler.folder):
        check_restored_in_part(compiler, published, "Read-only file system|Permission denied")
    check_restored(compiler, published)
