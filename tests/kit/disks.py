"""Disks that are full, may not be written to, or hang: real ones, as far as the machine lets a test have them."""

import ctypes
import os
import resource
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

_BLOCK = 4096


@contextmanager
def small_disk(folder: Path, size: int) -> Iterator[Path]:
    """Mount a disk of a few bytes, which takes root; the test is skipped where that is refused."""
    folder.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, capture_output=True)


def fill(folder: Path) -> Path:
    """Fill a disk to the last byte, by one file."""
    filler = folder / "filler"
    with suppress(OSError), filler.open("wb", buffering=0) as file:
        while file.write(bytes(_BLOCK)):
            pass
    return filler


@contextmanager
def read_only(folder: Path) -> Iterator[None]:
    """Let nobody write below a folder: by its mode, or for root, whom modes do not stop, by a mount over itself."""
    if os.geteuid():
        folders = [folder, *(path for path in folder.rglob("*") if path.is_dir())]
        for path in folders:
            path.chmod(0o500)
        try:
            yield
        finally:
            for path in folders:
                path.chmod(0o700)
        return
    _mount("--bind", folder, folder)
    try:
        _mount("-o", "remount,ro,bind", folder)
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True, capture_output=True)


@contextmanager
def short_files(size: int) -> Iterator[None]:
    """Let no file of this process grow beyond a size, as a quota does; the write that crosses it fails half-way."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def hanging(folder: Path) -> Iterator[None]:
    """Mount a disk over a folder that answers nothing, as a network disk does whose server is gone.

    Whoever waits for it is told that it is gone at the end of the block.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        # Who holds this end of a FUSE mount has to answer, and nobody ever reads from it.
        device = os.open("/dev/fuse", os.O_RDWR)
    except OSError as error:
        pytest.skip(f"a disk that hangs cannot be mounted here: {error}")
    try:
        options = f"fd={device},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()}".encode()
        if ctypes.CDLL(None, use_errno=True).mount(b"hanging", os.fsencode(folder), b"fuse", 0, options):
            pytest.skip(f"a disk that hangs cannot be mounted here: {os.strerror(ctypes.get_errno())}")
        yield
    finally:
        os.close(device)
        subprocess.run(["umount", "--lazy", folder], check=False, capture_output=True)


def _mount(*arguments: str | Path) -> None:
    done = subprocess.run(["mount", *arguments], check=False, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"a disk cannot be mounted here: {done.stderr.strip()}")
