"""Workers of an inference server: one that lays out its folder as vLLM does, and vLLM's own compilation."""

import hashlib
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

Answer = dict[str, Any]
FOLDER = "torch_compile_cache"
HASH = "0123abcdef"


def vllm_like(*, rank: int, url: str, version: str = "0.33.0") -> Answer:
    """Serve a model as a rank of vLLM does, whose folder is restored from a store before it is looked into."""
    import megacache
    from megacache.integrations import vllm

    root = Path(os.environ["VLLM_CACHE_ROOT"])
    folder = root / FOLDER / HASH / f"rank_{rank}_0"
    vllm.register_root(root, version)
    vllm.publish_folder(folder)
    warmed = megacache.warm(url)
    restored = listing(root)
    backend = _Backend(folder / "backbone")
    with torch.no_grad():
        output = torch.compile(_net(rank), backend=backend)(_batch())
    return {
        "restored": restored,
        "warnings": list(warmed.warnings),
        "reason": warmed.reason,
        "ordinary": warmed.files - len(restored),
        "loaded": backend.loaded,
        "digest": _digest(output),
    }


def serve_like_vllm() -> bool:
    """Compile in a server's worker as vLLM's plug-in sees to it, by the variables alone; tell if it was loaded."""
    from megacache.integrations import vllm
    from megacache.integrations._lifecycle import autostart

    root = Path(os.environ["VLLM_CACHE_ROOT"])
    folder = root / FOLDER / HASH / "rank_0_0"
    vllm.register_root(root, "0.33.0")
    vllm.publish_folder(folder)
    autostart().warm()
    backend = _Backend(folder / "backbone")
    with torch.no_grad():
        torch.compile(_net(0), backend=backend)(_batch())
    return backend.loaded


class _Backend:
    """Compiles a graph by `standalone_compile` into a folder of its own, or loads what is there."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._artifact = folder / "artifact_compile_range_1_8_subgraph_0"
        self.loaded = False

    def __call__(self, graph: Any, inputs: list[Any]) -> Any:
        """Be PyTorch's backend."""
        from torch._inductor import standalone_compile
        from torch._inductor.standalone_compile import CompiledArtifact

        from megacache import _compiler

        self.loaded = self._artifact.exists()
        if self.loaded:
            with _compiler.unrecorded():
                return CompiledArtifact.load(path=str(self._artifact), format="binary")
        compiled = standalone_compile(graph, inputs, dynamic_shapes="from_example_inputs")
        self._folder.mkdir(parents=True)
        compiled.save(path=str(self._artifact), format="binary")
        handles = {((1, 8), 0, "inductor_standalone"): {"graph_handle": (self._artifact.name, str(self._artifact))}}
        (self._folder / "vllm_compile_cache.py").write_text(repr(handles))
        (self._folder / "computation_graph.py").write_text("import torch\n")
        (self._folder / "cache_key_factors.json").write_text("{}")
        return compiled


def vllm_itself(*, rank: int) -> Answer:
    """Compile a model by vLLM, whose own loader finds the plug-in; no engine runs."""
    from vllm.compilation.counter import compilation_counter
    from vllm.compilation.passes.utility.fix_functionalization import FixFunctionalizationPass
    from vllm.config import CompilationMode, CUDAGraphMode, VllmConfig, set_current_vllm_config
    from vllm.plugins import load_general_plugins

    load_general_plugins()
    FixFunctionalizationPass.__call__ = lambda *_: None  # names CUDA kernels of the wheel, which a CPU cannot load
    config = VllmConfig()
    config.parallel_config.rank = rank
    choices = config.compilation_config
    choices.mode, choices.backend, choices.custom_ops = CompilationMode.VLLM_COMPILE, "inductor", ["none"]
    choices.cudagraph_mode, choices.compile_sizes, choices.splitting_ops = CUDAGraphMode.NONE, [], []
    for name in vars(choices.pass_config):
        if name.startswith("fuse_"):
            setattr(choices.pass_config, name, False)
    with set_current_vllm_config(config), torch.no_grad():
        output = _vllm_model(config)(_batch())
    return {
        "digest": _digest(output),
        "counted": asdict(compilation_counter),
        "files": listing(Path(os.environ["VLLM_CACHE_ROOT"])),
    }


def _vllm_model(config: Any) -> nn.Module:
    from vllm.compilation.decorators import support_torch_compile

    class Model(nn.Module):
        def __init__(self, *, vllm_config: Any, prefix: str = "") -> None:
            super().__init__()
            self.net = _net(vllm_config.parallel_config.rank)
            self.prefix = prefix

        def forward(self, x: Tensor) -> Tensor:
            return self.net(x)  # type: ignore[no-any-return]

    compiled: Any = support_torch_compile(Model)
    model: nn.Module = compiled(vllm_config=config)
    return model


def _net(rank: int) -> nn.Module:
    torch.manual_seed(rank)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))


def _batch() -> Tensor:
    return torch.linspace(-1, 1, 8 * 16).reshape(8, 16)


def _digest(output: Tensor) -> str:
    return hashlib.sha256(output.contiguous().numpy().tobytes()).hexdigest()


def listing(root: Path) -> list[str]:
    """Name the files below a folder."""
    return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
