"""Kernels that Triton compiled outside of any graph: those within graphs travel in their graph's artifact."""

import base64
import gc
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def kernel_files(triton_folder: Path, inductor_folder: Path) -> Iterator[Path]:
    """Give the files of the kernels that this process holds and that lie in Triton's folder."""
    module = sys.modules.get("triton.compiler.compiler")
    if module is None or not triton_folder.is_dir():
        return
    kernels = [kernel for kernel in gc.get_objects() if type(kernel) is module.CompiledKernel]
    for kernel in kernels:
        if _source(kernel).is_relative_to(inductor_folder):
            continue
        folder = triton_folder / _folder_name(str(kernel.hash))
        yield from (path for path in folder.glob("*") if path.is_file())


def _source(kernel: Any) -> Path:
    """Find the file that defines a kernel; Inductor writes those of its graphs into its cache folder."""
    function = getattr(getattr(kernel.src, "fn", None), "fn", None)
    code = getattr(function, "__code__", None)
    return Path(code.co_filename if code is not None else "/")


def _folder_name(digest: str) -> str:
    """Name a kernel's folder as `triton.runtime.cache` does."""
    return base64.b32encode(bytes.fromhex(digest)).decode().rstrip("=")
