"""Programs written for other libraries, as their documentation has them, with nothing but the import line changed.

A small network stands for Stable Diffusion and Flux. Each program gives its outputs, and what the library told it.
"""

from typing import Any

import torch
from torch import Tensor, nn

from megacache.compat.b10 import OperationStatus, load_compile_cache, save_compile_cache
from megacache.compat.fal import load_inductor_cache, sync_inductor_cache, synchronized_inductor_cache

Ran = tuple[list[Tensor], dict[str, Any]]


class Denoiser(nn.Module):
    """A small network with the same weights in every process."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.blocks = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 16))

    def forward(self, x: Tensor) -> Tensor:
        """Take a step."""
        noise: Tensor = self.blocks(x).sigmoid()
        return x - noise


class _App:
    """What both libraries call a model: something that is loaded and warmed up."""

    def __init__(self) -> None:
        self.model: Any = Denoiser()
        self.outputs: list[Tensor] = []

    def warmup(self) -> None:
        """Run the model once."""
        with torch.no_grad():
            self.outputs.append(self.model(torch.linspace(-1, 1, 128).reshape(8, 16)))


def fal_block(key: str, *, fails: bool = False) -> Ran:
    """Compile within fal's context manager."""

    class App(_App):
        def setup(self) -> None:
            with synchronized_inductor_cache(key):
                self.model = torch.compile(self.model)
                self.warmup()
                if fails:
                    msg = "the block failed"
                    raise RuntimeError(msg)

    app, caught = App(), ""
    try:
        app.setup()
    except RuntimeError as error:
        caught = str(error)
    return app.outputs, {"caught": caught}


def fal_by_hand(key: str) -> Ran:
    """Compile between fal's two functions."""

    class App(_App):
        def setup(self) -> str:
            dir_hash = load_inductor_cache(key)
            self.model = torch.compile(self.model)
            self.warmup()
            sync_inductor_cache(key, dir_hash)
            return dir_hash

    app = App()
    dir_hash = app.setup()
    return app.outputs, {"dir_hash": dir_hash}


def b10_model() -> Ran:
    """Load a model as b10-transfer's quick start does."""

    class Model(_App):
        saved: OperationStatus | None = None

        def load(self) -> OperationStatus:
            cache_loaded = load_compile_cache()
            if cache_loaded != OperationStatus.ERROR:
                self.model = torch.compile(self.model, mode="max-autotune-no-cudagraphs")
            self.warmup()
            self.warmup()
            if cache_loaded not in {OperationStatus.ERROR, OperationStatus.SUCCESS}:
                self.saved = save_compile_cache()
            return cache_loaded

    model = Model()
    loaded = model.load()
    return model.outputs, {"loaded": loaded.name, "saved": model.saved.name if model.saved else None}
