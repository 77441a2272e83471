"""Triton kernels: those that this process uses, and those that are really compiled, by it and by its workers.

PyTorch's own counters tell only what it handed to Triton, and on a hit they add what the publisher had counted.
"""

import base64
import functools
import gc
import re
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from megacache._bundle import Artifact
from megacache._runtime import kept

_BUNDLED = re.compile(rb"\x8c\x34([A-Z2-7]{52})")
"""A kernel's folder, as a string of its own: PyTorch's bundle of a kernel begins with it."""
_NAMED = re.compile(rb"\x8c\x40([0-9a-f]{64})")
"""The digest of a kernel, as a string of its own: what is launched without Triton keeps it."""
_TUNED = re.compile(rb'"triton_cache_hash": ?"([A-Z2-7]{52})"')
"""The folder of the kernel that won an autotuning, in its `autotune` artifact."""

_compiled: set[str] = kept(set())
_watched: list[str] = []


def kernel_files(artifacts: Iterable[Artifact], folders: Iterable[Path]) -> Iterator[Path]:
    """Give the files of the kernels that this process uses and no artifact holds; those that live may be gone.

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
    living = _living_kernels()
    for name in sorted((wanted | living.keys()) - bundled):
        # A file stands for all of its name, and the last one that is given counts: one that is there, if any is.
        yield from (folder / name / file for folder in folders for file in living.get(name, ()))
        for folder in folders:
            yield from (path for path in (folder / name).glob("*") if path.is_file())


def _living_kernels() -> Mapping[str, set[str]]:
    """Name the folders of the kernels that this process may launch, by Triton or by Inductor's own launchers.

    Each comes with the names of its files, as far as they are known.
    """
    # They are looked up and not imported: a process without kernels must not load Triton for this.
    compiler = sys.modules.get("triton.compiler.compiler")
    heuristics = sys.modules.get("torch._inductor.runtime.triton_heuristics")
    names: defaultdict[str, set[str]] = defaultdict(set)
    if compiler is None:
        return names
    for found in gc.get_objects():
        # `isinstance` would ask the proxies among them, which may run code of the program.
        if type(found) is compiler.CompiledKernel:
            # Triton disassembles some when it is asked to, into no file.
            kinds = {"json", *found.asm} - {"sass"}
            names[folder_name(str(found.hash))] |= {f"{found.name}.{kind}" for kind in kinds}
        elif heuristics is not None and issubclass(type(found), heuristics.CachingAutotuner):
            for launcher in found.launchers:
                if hasattr(launcher, "cache_hash"):
                    names[launcher.cache_hash] |= set()
    return names


def folder_name(digest: str) -> str:
    """Name a kernel's folder as `triton.runtime.cache` does."""
    return base64.b32encode(bytes.fromhex(digest)).decode().rstrip("=")


def watch_kernels() -> None:
    """Set the hooks; each function that is wrapped still does what it did."""
    from torch.utils._triton import has_triton_package

    if has_triton_package() and not _watched:
        _watch_triton()
        _watch_workers()
    # Without Triton the number is known, too: it is 0.
    _watched.append("")


def compiled_kernels() -> int | None:
    """Give the number of kernels so far; None before `watch_kernels`."""
    return len(_compiled) if _watched else None


def _watch_triton() -> None:
    """Ask Triton to tell of each kernel that it compiles in this process, or finds in its folder."""
    from triton import knobs

    # Somebody may listen already, and there is room for one.
    before: Callable[..., Any] | None = knobs.compilation.listener

    def note(**event: Any) -> None:
        with suppress(Exception):  # if Triton tells it in another way, its compilation goes on
            if not event["cache_hit"]:
                _compiled.add(str(event["metadata"]["hash"]))
        if before is not None:
            before(**event)

    knobs.compilation.listener = note


def _watch_workers() -> None:
    """Look at what the pool of workers gives back."""
    from torch._inductor import async_compile, codecache

    owner: Any = async_compile.AsyncCompile
    triton, future = owner.triton, codecache.LambdaFuture

    @functools.wraps(triton)
    def hand_over(*arguments: Any, **options: Any) -> Any:
        begun = time.time_ns()
        found = triton(*arguments, **options)
        with suppress(Exception):
            if isinstance(found, future):
                found.result_fn = _told(found.result_fn, begun)
        return found

    owner.triton = hand_over


def _told(result: Callable[..., Any], begun: int) -> Callable[..., Any]:
    def told() -> Any:
        kernel = result()
        with suppress(Exception):  # if it gives back something else, the compilation goes on
            _note(kernel, begun)
        return kernel

    return told


def _note(autotuner: Any, begun: int) -> None:
    from torch._inductor.runtime.cache_dir_utils import triton_cache_dir

    folder = Path(triton_cache_dir(autotuner.triton_meta.get("device", 0)))
    for result in autotuner.compile_results:
        name = str(result.kernel.hash)
        files = (folder / folder_name(name)).iterdir()
        # A worker does not say whether it has compiled: it has if a file is newer than its task.
        if max(path.stat().st_mtime_ns for path in files) >= begun:
            _compiled.add(name)
