"""Count the Triton kernels that are really compiled, by this process and by its pool of compile workers.

PyTorch's own counters tell only what it handed to Triton, and on a hit they add what the publisher had counted.
"""

import functools
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from megacache._compiler._triton import folder_name

_compiled: set[str] = set()
_watched: list[str] = []


def watch_kernels() -> None:
    """Begin to count; each function that is wrapped still does what it did."""
    from torch.utils._triton import has_triton_package

    if has_triton_package() and not _watched:
        _watch_triton()
        _watch_workers()
    _watched.append("")


def compiled_kernels() -> int | None:
    """Give the number of kernels so far; None before `watch_kernels`."""
    return len(_compiled) if _watched else None


def _watch_triton() -> None:
    """Ask Triton to tell of each kernel that it compiles in this process, or finds in its folder."""
    from triton import knobs

    before: Callable[..., Any] | None = knobs.compilation.listener

    def heard(**event: Any) -> None:
        if not event.get("cache_hit"):
            _compiled.add(str(event.get("metadata", {}).get("hash")))
        if before is not None:
            before(**event)

    knobs.compilation.listener = heard


def _watch_workers() -> None:
    """Look at what the pool of workers gives back: a worker has compiled what is newer than its task."""
    from torch._inductor import async_compile, codecache

    owner: Any = async_compile.AsyncCompile
    triton = owner.triton

    @functools.wraps(triton)
    def hand_over(*arguments: Any, **options: Any) -> Any:
        begun = time.time_ns()
        found = triton(*arguments, **options)
        if isinstance(found, codecache.LambdaFuture):
            found.result_fn = _told(found.result_fn, begun)
        return found

    owner.triton = hand_over


def _told(result: Callable[..., Any], begun: int) -> Callable[..., Any]:
    def told() -> Any:
        kernel = result()
        with suppress(Exception):  # whatever it gives back, the compilation goes on
            _note(kernel, begun)
        return kernel

    return told


def _note(autotuner: Any, begun: int) -> None:
    from torch._inductor.runtime.cache_dir_utils import triton_cache_dir

    folder = Path(triton_cache_dir(autotuner.triton_meta.get("device", 0)))
    for result in autotuner.compile_results:
        name = str(result.kernel.hash)
        files = (folder / folder_name(name)).iterdir()
        if max(path.stat().st_mtime_ns for path in files) >= begun:
            _compiled.add(name)
