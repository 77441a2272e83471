"""Triton kernels count once they are compiled, wherever, and not when they are found."""

import os
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megacache._compiler import kernels
from megacache._compiler.kernels import compiled_kernels, folder_name

DIGEST = "cd" * 32


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of one kernel in Triton's cache, and count from nothing."""
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setattr("megacache._compiler.kernels._watched", [""])
    (tmp_path / folder_name(DIGEST)).mkdir()
    return tmp_path / folder_name(DIGEST)


def given_back() -> Any:
    """Stand for what a worker gives back: the autotuner of a kernel with one configuration."""
    return SimpleNamespace(triton_meta={}, compile_results=[SimpleNamespace(kernel=SimpleNamespace(hash=DIGEST))])


@pytest.mark.parametrize(("age", "count"), [(-1, 1), (60, 0)], ids=["compiled", "found"])
def test_kernel_of_a_worker_counts_if_it_is_new(folder: Path, age: int, count: int) -> None:
    """A worker that found the kernel in Triton's folder compiled nothing; asking again counts nothing more."""
    (folder / "kernel.cubin").write_bytes(b"1")
    now = time.time()
    os.utime(folder / "kernel.cubin", (now - age, now - age))
    told = kernels._told(given_back, int(now * 1e9))
    assert told().compile_results
    assert told().compile_results
    assert compiled_kernels() == count


def test_kernel_that_cannot_be_looked_at_is_still_given_back(folder: Path) -> None:
    """Nothing that counting meets reaches the program."""
    folder.rmdir()
    assert kernels._told(given_back, 0)().compile_results
    assert kernels._told(lambda: 7, 0)() == 7
    assert compiled_kernels() == 0
