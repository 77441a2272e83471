"""What one process of a node has downloaded the others take from its disk; whatever is wrong there is passed by."""

import os
import shutil
import stat
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from filelock import FileLock

from megacache._bundle import ChunkRef, open_chunk, pack_chunk
from megacache._bundle.chunk import Chunk
from megacache._catalog import NodeCache
from megacache._runtime import Deadline
from megacache._settings import Settings
from megacache.errors import IntegrityError, MissingError, UnavailableError
from tests.kit.builders import artifacts, noise, payload
from tests.kit.disks import fill, read_only, small_disk

STRANGER, OTHER = 65534, 65533
MOST = 1 << 20
READERS = 8


def chunk(seed: int = 0, size: int = 1000) -> Chunk:
    """Make a chunk that is a little larger than `size` as stored."""
    return pack_chunk(payload(artifacts(1, size=size, seed=seed)))


class Reader:
    """A process that reads chunks by the cache, and counts its downloads."""

    def __init__(self, folder: Path, most: int = MOST) -> None:
        self.cache = NodeCache(folder, most)
        self.downloads = 0

    def read(self, wanted: Chunk, *, seconds: float = 60, download: Callable[[], bytes] | None = None) -> bytes:
        """Read a chunk."""

        def count() -> bytes:
            self.downloads += 1
            return wanted.stored if download is None else download()

        found, keep = self.cache.get(
            wanted.ref, count, lambda stored: open_chunk(wanted.ref, stored), Deadline.after(seconds)
        )
        keep()
        return found


def content(wanted: Chunk) -> bytes:
    """Give what is in a chunk."""
    return open_chunk(wanted.ref, wanted.stored)


def kept(folder: Path, ref: ChunkRef) -> Path:
    """Say where a chunk is kept."""
    return folder / f"{ref.digest.hex}.zst"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Name a folder that is not there yet."""
    return tmp_path / "new" / "chunks"


def test_second_process_downloads_nothing(folder: Path) -> None:
    """It finds what the first has kept, in a folder of which nobody else sees the inside."""
    one, other, wanted = Reader(folder), Reader(folder), chunk()
    assert [reader.read(wanted) for reader in (one, other, one)] == [content(wanted)] * 3
    assert (one.downloads, other.downloads) == (1, 0)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [path.name for path in folder.iterdir()] == [kept(folder, wanted.ref).name]


def test_readers_at_once_download_once(folder: Path) -> None:
    """All but one wait, and take what that one has kept."""
    readers, wanted, gate = [Reader(folder) for _ in range(READERS)], chunk(), threading.Barrier(READERS)
    found: list[bytes] = []

    def work(reader: Reader) -> None:
        gate.wait(30)
        found.append(reader.read(wanted))

    running = [threading.Thread(target=work, args=(reader,), daemon=True) for reader in readers]
    for thread in running:
        thread.start()
    for thread in running:
        thread.join(60)
    assert found == [content(wanted)] * READERS
    assert sum(reader.downloads for reader in readers) == 1
    assert [path.suffix for path in folder.iterdir()] == [".zst"]


def test_holder_that_hangs_is_not_waited_for_to_the_end(folder: Path) -> None:
    """Whoever has waited in vain downloads by itself, with time left for it."""
    reader, wanted = Reader(folder), chunk()
    folder.mkdir(parents=True, mode=0o700)
    with FileLock(kept(folder, wanted.ref).with_suffix(".lock")):
        assert reader.read(wanted, seconds=0.4) == content(wanted)
    assert reader.downloads == 1


def _make_pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "flipped": lambda path: path.write_bytes(path.read_bytes()[:-1] + b"?"),
    "longer": lambda path: path.write_bytes(path.read_bytes() + b"?"),
    "short": lambda path: path.write_bytes(path.read_bytes()[:-1]),
    "empty": lambda path: path.write_bytes(b""),
    "another": lambda path: path.write_bytes(noise(1000)),
    "pipe": _make_pipe,
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_file_is_replaced(folder: Path, damage: str) -> None:
    """It is never used, downloaded once more, and good for the next."""
    reader, wanted = Reader(folder), chunk()
    reader.read(wanted)
    DAMAGES[damage](kept(folder, wanted.ref))
    assert [reader.read(wanted) for _ in range(2)] == [content(wanted)] * 2
    assert reader.downloads == 2
    assert kept(folder, wanted.ref).read_bytes() == wanted.stored


def test_link_is_not_followed(folder: Path, tmp_path: Path) -> None:
    """What it leads to is neither read nor written."""
    reader, wanted, outside = Reader(folder), chunk(), tmp_path / "outside"
    outside.write_bytes(wanted.stored)
    folder.mkdir(parents=True, mode=0o700)
    kept(folder, wanted.ref).symlink_to(outside)
    assert reader.read(wanted) == content(wanted)
    assert reader.downloads == 1
    assert not kept(folder, wanted.ref).is_symlink()


def test_bad_download_is_not_kept(folder: Path) -> None:
    """The fault is the store's, and the next process asks again."""
    reader, wanted = Reader(folder), chunk()
    with pytest.raises(IntegrityError):
        reader.read(wanted, download=lambda: b"bad")
    assert list(folder.iterdir()) == []
    assert reader.read(wanted) == content(wanted)


def test_fault_of_the_store_is_told(folder: Path) -> None:
    """What the download raises comes through, and the next in turn is let in."""
    reader, wanted = Reader(folder), chunk()

    def missing() -> bytes:
        raise MissingError("gone")

    with pytest.raises(MissingError):
        reader.read(wanted, download=missing)
    assert list(folder.iterdir()) == []


def test_what_was_left_alone_longest_makes_room(folder: Path) -> None:
    """A chunk that was read lately stays, whenever it was downloaded."""
    wanted = [chunk(seed) for seed in range(5)]
    reader = Reader(folder, most=sum(one.ref.stored_size for one in wanted))
    for age, one in enumerate(wanted):
        reader.read(one)
        os.utime(kept(folder, one.ref), (1000 + age, 1000 + age))
    reader.read(wanted[0])
    reader.read(chunk(9))
    assert [kept(folder, one.ref).exists() for one in wanted] == [True, False, False, True, True]
    assert kept(folder, chunk(9).ref).exists()


def test_folder_never_grows_beyond_its_limit(folder: Path) -> None:
    """Whatever is read, in small chunks and large ones; what killed processes have left counts, and goes as well."""
    most = 20_000
    reader = Reader(folder, most)
    folder.mkdir(parents=True, mode=0o700)
    for name in (f".{'0' * 32}.tmp", f"{'1' * 64}.lock"):
        (folder / name).write_bytes(bytes(3000))
        os.utime(folder / name, (1000, 1000))
    for seed in range(60):
        reader.read(chunk(seed, size=100 + 37 * seed))
        assert reader.cache.contents().size <= most
    assert {path.suffix for path in folder.iterdir()} == {".zst"}
    assert reader.cache.contents().size > most / 2


def test_processes_that_fill_it_together_hardly_exceed_the_limit(folder: Path) -> None:
    """Each sees what the others have written, at the latest after a sixteenth of the room that it saw."""
    readers, most = [Reader(folder, 50_000) for _ in range(4)], 50_000
    for seed in range(100):
        readers[seed % 4].read(chunk(seed))
    assert readers[0].cache.contents().size <= most * 1.2


def test_chunk_larger_than_the_limit_is_not_kept(folder: Path) -> None:
    """It does not drive out all others either."""
    reader, small, large = Reader(folder, 5000), chunk(1), chunk(2, size=6000)
    reader.read(small)
    assert [reader.read(large) for _ in range(2)] == [content(large)] * 2
    assert reader.downloads == 3
    assert [path.name for path in folder.iterdir()] == [kept(folder, small.ref).name]


def test_full_disk_keeps_nothing(tmp_path: Path) -> None:
    """The chunk is used all the same, and no part of it is left."""
    with small_disk(tmp_path / "disk", MOST) as disk:
        reader, wanted = Reader(disk / "cache" / "chunks"), chunk(size=100_000)
        reader.read(chunk(1))
        filler = fill(disk)
        assert reader.read(wanted) == content(wanted)
        assert [path.name for path in reader.cache.folder.iterdir()] == [kept(reader.cache.folder, chunk(1).ref).name]
        filler.unlink()
        assert [reader.read(wanted) for _ in range(2)] == [content(wanted)] * 2
        assert reader.downloads == 3


def test_read_only_disk_is_read(folder: Path) -> None:
    """What is there serves, and what is not is downloaded."""
    reader = Reader(folder)
    reader.read(chunk(1))
    with read_only(folder.parent):
        assert reader.read(chunk(1)) == content(chunk(1))
        assert reader.read(chunk(2)) == content(chunk(2))
    assert reader.downloads == 2


@pytest.mark.parametrize("obstacle", ["file", "link", "open to all"])
def test_folder_that_cannot_be_used_is_passed_by(folder: Path, obstacle: str, tmp_path: Path) -> None:
    """A file in its place, a link, or a folder that everyone may write to; the command says what is wrong."""
    folder.parent.mkdir()
    outside = tmp_path / "outside"
    outside.mkdir()
    if obstacle == "file":
        folder.write_text("x")
    elif obstacle == "link":
        folder.symlink_to(outside)
    else:
        folder.mkdir()
        folder.chmod(0o777)
    reader, wanted = Reader(folder), chunk()
    assert [reader.read(wanted) for _ in range(2)] == [content(wanted)] * 2
    assert reader.downloads == 2
    assert list(outside.iterdir()) == []
    with pytest.raises(UnavailableError, match=str(folder)):
        reader.cache.contents()


@contextmanager
def as_user(user: int) -> Iterator[None]:
    """Be somebody else."""
    os.seteuid(user)
    try:
        yield
    finally:
        os.seteuid(0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can be somebody else")
def test_two_users_do_not_share() -> None:
    """The second of two users who have one cache folder passes it by, and changes nothing of the first one's."""
    base = Path(tempfile.mkdtemp())  # pytest's own folders are closed to others
    try:
        base.chmod(0o1777)
        one, other, wanted = Reader(base / "chunks"), Reader(base / "chunks"), chunk()
        with as_user(STRANGER):
            one.read(wanted)
        with as_user(OTHER):
            assert other.read(wanted) == content(wanted)
            with pytest.raises(UnavailableError, match="chunks: folder of another user"):
                other.cache.clear()
        with as_user(STRANGER):
            assert one.read(wanted) == content(wanted)
        assert (one.downloads, other.downloads) == (1, 1)
    finally:
        shutil.rmtree(base)


def test_contents_are_told_and_cleared(folder: Path) -> None:
    """Chunks, bytes and times of use; a folder that is not there is empty, and stays away."""
    reader, wanted = Reader(folder), [chunk(1), chunk(2)]
    assert reader.cache.contents().chunks == 0
    reader.cache.clear()
    assert not folder.exists()
    for one in wanted:
        reader.read(one)
    os.utime(kept(folder, wanted[0].ref), (1000, 1000))
    found = reader.cache.contents()
    assert (found.chunks, found.size) == (2, sum(one.ref.stored_size for one in wanted))
    assert found.oldest == 1000
    assert found.newest is not None
    assert found.newest > 1000
    reader.cache.clear()
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("url", "gains"),
    [
        ("s3://bucket/flux", True),
        ("simplecache::gs://bucket/flux", True),
        ("zip://x::https://host/flux.zip", True),
        ("https://host/flux", True),
        ("file:///mnt/flux", False),
        ("/mnt/flux", False),
        ("relative/flux", False),
        ("zip://x::/mnt/flux.zip", False),
        ("memory://flux", False),
    ],
)
def test_near_stores_are_not_copied(url: str, gains: bool) -> None:
    """A folder or memory is read where it is; and nothing is kept where that is switched off."""
    assert (NodeCache.of(url, Settings()) is not None) == gains
    assert NodeCache.of(url, Settings(node_max_bytes=0)) is None
