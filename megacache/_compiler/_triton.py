"""Triton's compiled kernels: which of them the recorded artifacts hold, name or leave out.

A graph's artifact brings most of its kernels along. PyTorch leaves out those that it compiles after the graph was
recorded, such as the winner of a coordinate descent, and the configurations that lost, which it then asks for all the
same (pytorch#194918). Artifacts are searched as bytes: nothing is unpickled.
"""

import base64
import gc
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

from megacache._bundle import Artifact

_BUNDLED = re.compile(rb"\x8c\x34([A-Z2-7]{52})")
"""A kernel's folder, as a string of its own: PyTorch's bundle of a kernel begins with it."""
_NAMED = re.compile(rb"\x8c\x40([0-9a-f]{64})")
"""The digest of a kernel, as a string of its own: what is launched without Triton keeps it."""
_TUNED = re.compile(rb'"triton_cache_hash": ?"([A-Z2-7]{52})"')
"""The folder of the kernel that won an autotuning, in its `autotune` artifact."""


def kernel_files(artifacts: Iterable[Artifact], folders: Iterable[Path]) -> Iterator[Path]:
    """Give the files of the kernels that this process uses and no artifact holds.

    Those are kernels that the artifacts name, and those that live outside of any graph.
    """
    bundled: set[str] = set()
    wanted: set[str] = set()
    for artifact in artifacts:
        if artifact.kind == "autotune":
            wanted.update(found.decode() for found in _TUNED.findall(artifact.content))
        else:
            bundled.update(found.decode() for found in _BUNDLED.findall(artifact.content))
            wanted.update(folder_name(found.decode()) for found in _NAMED.findall(artifact.content))
    wanted.update(_living_kernels())
    for name in sorted(wanted - bundled):
        for folder in folders:
            yield from (path for path in (folder / name).glob("*") if path.is_file())


def _living_kernels() -> Iterator[str]:
    """Name the folders of the kernels that this process may launch: by Triton, or by Inductor's own launchers."""
    compiler = sys.modules.get("triton.compiler.compiler")
    heuristics = sys.modules.get("torch._inductor.runtime.triton_heuristics")
    if compiler is None:
        return
    for found in gc.get_objects():
        if type(found) is compiler.CompiledKernel:
            yield folder_name(str(found.hash))
        elif heuristics is not None and issubclass(type(found), heuristics.CachingAutotuner):
            yield from (launcher.cache_hash for launcher in found.launchers if hasattr(launcher, "cache_hash"))


def folder_name(digest: str) -> str:
    """Name a kernel's folder as `triton.runtime.cache` does."""
    return base64.b32encode(bytes.fromhex(digest)).decode().rstrip("=")
