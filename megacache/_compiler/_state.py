"""How torch is set up in this process, as far as it decides whether a cache can be of use."""

import os
from collections.abc import Collection

from megacache._compiler._door import door
from megacache.errors import CompilerError


def switched_off() -> str:
    """Say why torch would use no cached graph in this process; empty if it would."""
    with door("reading its configuration"):
        import torch._inductor.config

        if torch._inductor.config.force_disable_caches:
            return "PyTorch's caches are off: torch._inductor.config.force_disable_caches"
        if not torch._inductor.config.fx_graph_cache:
            return "PyTorch's graph cache is off: torch._inductor.config.fx_graph_cache"
    return ""


def cache_folder() -> str:
    """Find the folder torch keeps its caches in, and make it."""
    with door("making its cache folder"):
        from torch._inductor.runtime.cache_dir_utils import cache_dir

        return str(cache_dir())


def writable_cache_folder() -> str:
    """Find that folder; raise `CompilerError` if nothing can be written there."""
    folder = cache_folder()
    if not os.access(folder, os.W_OK | os.X_OK):
        msg = f"the cache folder {folder} is not writable"
        raise CompilerError(msg, hint="set TORCHINDUCTOR_CACHE_DIR to one that is")
    return folder


def loading_warnings() -> list[str]:
    """Say what will lessen the worth of what is loaded now."""
    with door("reading its counters"):
        import torch._dynamo.config
        import torch._functorch.config
        from torch._dynamo.utils import counters

        warnings = []
        if counters["stats"]["unique_graphs"]:
            warnings.append(
                "this process has compiled before, and graphs compiled already are not replaced: "
                "call warm() before the first compilation"
            )
        if not torch._functorch.config.enable_autograd_cache:
            warnings.append("torch._functorch.config.enable_autograd_cache is off: only Inductor's graphs will hit")
        if getattr(torch._dynamo.config, "caching_precompile", False):
            warnings.append(
                "torch._dynamo.config.caching_precompile is on: "
                "megacache does not carry its artifacts, and AOTAutograd's cache will miss"
            )
    return warnings


def recording_warnings(kinds: Collection[str], *, apart: bool) -> list[str]:
    """Say what is missing from what torch recorded, given its kinds and whether the rest is carried apart from it."""
    with door("reading its counters"):
        import torch
        import torch._inductor.config
        from torch._dynamo.utils import counters

        warnings = []
        aot, inductor = counters["aot_autograd"], counters["inductor"]
        settled = ("autograd_cache_hit", "autograd_cache_saved", "autograd_cache_bypass")
        unsaved = aot["ok"] - sum(aot[name] for name in settled)
        if unsaved > 0:
            warnings.append(
                f"{unsaved} graphs were compiled without their AOTAutograd entry: "
                "run the backward before publishing, or compile under torch.no_grad()"
            )
        if "precompile" in kinds:
            warnings.append(
                "precompile artifacts were left out: they drop guards and can return another function's result"
            )
        if not kinds and not apart and (inductor["fxgraph_cache_miss"] or inductor["fxgraph_cache_hit"]):
            warnings.append(
                "graphs were compiled where PyTorch's recorder does not see them, as standalone_compile (vLLM) does"
            )
        if torch.cuda.is_available() and not torch._inductor.config.bundle_triton_into_fx_graph_cache:
            warnings.append("bundle_triton_into_fx_graph_cache is off: Triton kernels will be compiled anew")
    return warnings
