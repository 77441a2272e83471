"""Lead autotuners that come out of a graph's bundle to this process's cache folder.

Such an autotuner remembers the folder of the process that compiled it, looks for the winner of its tuning there, and
writes there what it finds out itself. On another host that folder is missing, is somebody else's, or cannot be made.
"""

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from megacache._compiler._door import door

_DONE = "_megacache_leads_here"


def lead_autotuners() -> None:
    """Begin to lead them; calling it again changes nothing."""
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
    def recheck_here(autotuner: Any, *arguments: Any, **options: Any) -> None:
        winner = _lead(autotuner)
        recheck(autotuner, *arguments, **options)
        _settle(autotuner, winner)

    setattr(recheck_here, _DONE, True)
    return recheck_here


def _lead(autotuner: Any) -> Path | None:
    """Change the paths that an autotuner keeps; give that of its winner."""
    if autotuner.filename is not None:
        autotuner.filename = _here(autotuner.filename)
    cache = getattr(autotuner.save_cache_hook, "__self__", None)
    local = getattr(cache, "local_cache", None)
    if cache is None or local is None:
        return None
    reader, path = local
    cache.local_cache = (reader, _here(path))
    return Path(cache.local_cache[1])


def _here(path: str) -> str:
    """Name the place in this process's cache folder: PyTorch's files lie there two names deep."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    return str(Path(cache_dir(), *Path(path).parts[-2:]))


def _settle(autotuner: Any, winner: Path | None) -> None:
    """Mark a winner of coordinate descent, which would be tuned again: before 2.13 PyTorch forgets how it was found."""
    results = autotuner.compile_results
    if winner is None or len(results) != 1 or getattr(results[0].config, "found_by_coordesc", False):
        return
    try:
        found = json.loads(winner.read_bytes())
    except (OSError, ValueError):
        return
    config = {**results[0].config.kwargs, "num_warps": results[0].config.num_warps}
    if found.get("found_by_coordesc") and all(found.get(name) == value for name, value in config.items()):
        results[0].config.found_by_coordesc = True
