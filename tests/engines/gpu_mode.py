"""A plug-in for vLLM that lets a server on a CPU compile as one on a GPU does: by vLLM's own backend.

On a CPU, vLLM traces once instead, and cannot load what it saves then. Nothing else of the server is changed.
"""

from pathlib import Path
from typing import Any


def install(folder: Path) -> str:
    """Make a distribution with the entry point that vLLM looks for; give what belongs into `PYTHONPATH`."""
    info = folder / "gpu_mode-0.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gpu-mode\nVersion: 0\n")
    (info / "entry_points.txt").write_text(f"[vllm.general_plugins]\ngpu_mode = {__name__}:register\n")
    return f"{folder}:{Path(__file__).parents[2]}"


def register() -> None:
    """Choose vLLM's backend where a server on a GPU would; vLLM calls this in each of its processes, maybe twice."""
    from vllm.compilation.passes.utility.fix_functionalization import FixFunctionalizationPass
    from vllm.config import CompilationMode
    from vllm.platforms.cpu import CpuPlatform

    FixFunctionalizationPass.__call__ = lambda *_: None  # names CUDA kernels of the wheel, which a CPU cannot load
    if CpuPlatform.__dict__["check_and_update_config"].__func__.__module__ == __name__:
        return
    check = CpuPlatform.check_and_update_config

    def check_and_keep_mode(cls: Any, vllm_config: Any) -> None:
        del cls
        choices = vllm_config.compilation_config
        wanted = choices.mode
        check(vllm_config)
        if wanted == CompilationMode.VLLM_COMPILE:
            choices.mode, choices.backend = CompilationMode.VLLM_COMPILE, "inductor"
            choices.splitting_ops, choices.compile_sizes = [], []

    CpuPlatform.check_and_update_config = classmethod(check_and_keep_mode)
