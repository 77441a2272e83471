"""Lead autotuners that come out of a graph's bundle to this process's cache folder.

Such an autotuner remembers the folder of the process that compiled it, looks for the winner of its tuning there, and
writes there what it finds out itself. On another host that folder is missing, is somebody else's, or cannot be made.
"""

import functools
import logging
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from megacache._compiler.door import door
from megacache.errors import CompilerError

_log = logging.getLogger("megacache")
_DONE = "_megacache_leads_here"


def lead_autotuners() -> None:
    """Begin to lead them; calling it again changes nothing, and a PyTorch in which they are not found is left alone."""
    try:
        _install()
    except CompilerError as error:
        _log.debug("autotuners are not led: error=%s", error)


def _install() -> None:
    with door("preparing for autotuned kernels"):
        from torch.utils._triton import has_triton_package

        if not has_triton_package():
            return
        from torch._inductor.runtime import triton_heuristics

        owner: Any = triton_heuristics.CachingAutotuner
        if not hasattr(owner.recheck_autotune_cache, _DONE):
            owner.recheck_autotune_cache = _led(owner.recheck_autotune_cache)


def _led(recheck: Callable[..., None]) -> Callable[..., None]:
    """Wrap what an autotuner does first when it comes out of a bundle: it looks for the winner of its tuning."""

    @functools.wraps(recheck)
    def recheck_here(autotuner: Any, reload_kernel_from_src: Callable[[], Any]) -> None:
        # What another PyTorch keeps in another way is left to it: nothing here may fail the program's compilation.
        with suppress(Exception):
            _lead(autotuner)
        # Read first: afterwards only the winner may be left.
        offered = [result.config for result in autotuner.compile_results]
        recheck(autotuner, reload_kernel_from_src)
        with suppress(Exception):
            _settle(autotuner, offered, reload_kernel_from_src)

    setattr(recheck_here, _DONE, True)
    return recheck_here


def _lead(autotuner: Any) -> None:
    if autotuner.filename is not None:
        autotuner.filename = _here(autotuner.filename)
    # The hook is a method of the autotuner's cache, which keeps the path by itself as well.
    cache = getattr(autotuner.save_cache_hook, "__self__", None)
    local = getattr(cache, "local_cache", None)
    if cache is not None and local is not None:
        reader, path = local
        cache.local_cache = (reader, _here(path))


def _here(path: str) -> str:
    # PyTorch's files lie two names deep in its cache folder: the rest of the path is the publisher's.
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return str(Path(cache_dir(), *Path(path).parts[-2:]))


def _settle(autotuner: Any, offered: list[Any], reload_kernel: Callable[[], Any]) -> None:
    """Take the winner of a coordinate descent, which PyTorch before 2.13 would look for again in two cases."""
    from torch._inductor.runtime import triton_heuristics

    results = autotuner.compile_results
    if len(results) != 1 or getattr(results[0].config, "found_by_coordesc", False):
        return
    winners, *_ = triton_heuristics.check_autotune_cache(offered, autotuner.filename, autotuner.inductor_meta)
    if len(winners) != 1 or not getattr(winners[0], "found_by_coordesc", False):
        return
    # It takes a winner that was offered, but does not take over that a descent has found it.
    if _form(results[0].config) == _form(winners[0]):
        results[0].config.found_by_coordesc = True
        return
    # It looks for no winner where only one configuration was offered. A kernel in a bundle lacks its function.
    if autotuner.fn.fn is None:
        autotuner.fn = reload_kernel().fn
    autotuner.compile_results = [autotuner._precompile_config(winners[0])]


def _form(config: Any) -> tuple[Any, ...]:
    return (sorted(config.kwargs.items()), config.num_warps, config.num_stages)
