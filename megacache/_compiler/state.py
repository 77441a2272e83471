"""How torch is set up in this process, as far as it decides whether a cache can be of use, and on which device."""

import logging
import os
from collections.abc import Callable, Collection, Iterator
from typing import Any

from megacache._bundle import Artifact
from megacache._compiler.door import door
from megacache._runtime import counted
from megacache._settings import exposed_secrets
from megacache.errors import CompilerError

_log = logging.getLogger("megacache")


def switched_off() -> str:
    """Say why torch would use no cached graph in this process; empty if it would."""
    with door("reading its configuration"):
        import torch._inductor.config

        if torch._inductor.config.force_disable_caches:
            return "PyTorch's caches are off: torch._inductor.config.force_disable_caches"
        if not torch._inductor.config.fx_graph_cache:
            return "PyTorch's graph cache is off: torch._inductor.config.fx_graph_cache"
    return ""


def import_inductor() -> None:
    """Import what the first compilation by Inductor would import, which takes it a second."""
    with door("importing Inductor"):
        import torch._inductor.compile_fx  # noqa: F401 - as said above


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
    """Say why what is loaded now may not hit."""
    return list(_told(_compiled_before, _autograd_cache_off, _precompile_on))


def recording_warnings(recorded: Collection[Artifact], *, apart: bool) -> list[str]:
    """Say what is amiss with what torch recorded, and whether anything is carried apart from it."""
    precompiled = any(artifact.kind == "precompile" for artifact in recorded)

    def secrets_written() -> str:
        return _secrets_written(recorded, apart=apart)

    checks = (_graphs_without_entry, _bundling_off, secrets_written, *([] if recorded or apart else [_hidden_graphs]))
    left_out = ["precompile artifacts were left out: they drop guards and can return another function's result"]
    return [*_told(*checks), *(left_out if precompiled else [])]


def _told(*checks: Callable[[], str]) -> Iterator[str]:
    for check in checks:
        try:
            with door("checking for warnings"):
                warning = check()
        except CompilerError:  # what only warns must not fail the call
            _log.debug("warning not checked: check=%s", check.__name__, exc_info=True)
            continue
        if warning:
            yield warning


def _compiled_before() -> str:
    from torch._dynamo.utils import counters

    if not counters["stats"]["unique_graphs"]:
        return ""
    return (
        "this process has compiled before, and graphs compiled already are not replaced: "
        "call warm() before the first compilation"
    )


def _autograd_cache_off() -> str:
    import torch._functorch.config

    if torch._functorch.config.enable_autograd_cache:
        return ""
    return "torch._functorch.config.enable_autograd_cache is off: only Inductor's graphs will hit"


def _precompile_on() -> str:
    import torch._dynamo.config

    if not getattr(torch._dynamo.config, "caching_precompile", False):
        return ""
    return (
        "torch._dynamo.config.caching_precompile is on: "
        "megacache does not publish its artifacts, and AOTAutograd's cache will miss"
    )


def _graphs_without_entry() -> str:
    from torch._dynamo.utils import counters

    table = counters["aot_autograd"]
    # The entry of a training graph is saved once its backward is compiled.
    settled = ("autograd_cache_hit", "autograd_cache_saved", "autograd_cache_bypass")
    unsaved = table["ok"] - sum(table[name] for name in settled)
    if unsaved <= 0:
        return ""
    return (
        f"{counted(unsaved, 'graph')} compiled without an AOTAutograd entry, which the next start will miss: "
        "run the backward before publishing or, for inference, wrap the calls in `with torch.no_grad():`"
    )


def _hidden_graphs() -> str:
    # `standalone_compile` exchanges torch's recorder while it compiles; what `aot_compile` makes is found under no key.
    from torch._dynamo.utils import counters

    if not counters["aot_autograd"]["ok"]:
        return ""
    return (
        "other processes cannot find graphs compiled by aot_compile or standalone_compile in PyTorch's caches: "
        "only their compiled files are published"
    )


def _secrets_written(recorded: Collection[Artifact], *, apart: bool) -> str:
    """Warn of secrets in the program that torch adds to a graph: from 2.14 on only if its trace is written, too."""
    names = exposed_secrets()
    if not apart:  # what a program keeps in a folder of its own is not looked into
        names = tuple(name for name in names if any(name.encode() in bytes(one.content) for one in recorded))
    if not names:
        return ""
    return (
        f"PyTorch writes environment variables into what it compiles, {', '.join(names)} among them: whoever may read "
        "the store may read their values; rename them, or unset them before the first compilation"
    )


def _bundling_off() -> str:
    import torch._inductor.config

    if not torch.cuda.is_available() or torch._inductor.config.bundle_triton_into_fx_graph_cache:
        return ""
    return "bundle_triton_into_fx_graph_cache is off: Triton kernels will be compiled anew"


def current_device() -> int | None:
    """Tell the GPU that this thread uses; None if it uses none yet."""
    with door("asking for its device"):
        import torch

        cuda: Any = torch.cuda
        # Asking would initialise CUDA.
        return cuda.current_device() if cuda.is_initialized() else None


def use_device(device: int | None) -> None:
    """Let this thread use the GPU that another one uses: each thread begins with the first."""
    with door("choosing its device"):
        import torch

        cuda: Any = torch.cuda
        if device is not None and cuda.is_initialized():
            cuda.set_device(device)
