"""A UNet of diffusion models: residual blocks on the way down and up, joined by skips, attention at the bottom."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.benchmark.models.case import Case, Size

_CHANNELS = 4
"""Of the latent image, as in latent diffusion (arXiv:2112.10752)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the model is."""

    widths: tuple[int, ...]
    """Channels at each level, from the finest down."""
    blocks: int
    """Residual blocks at each level, on each way."""
    groups: int
    """Of each group norm."""
    heads: int
    side: int
    batch: int


_SHAPES: Mapping[Size, Shape] = {
    "quick": Shape(widths=(8, 16), blocks=1, groups=4, heads=2, side=16, batch=1),
    "cpu": Shape(widths=(16, 32, 64), blocks=2, groups=4, heads=4, side=32, batch=1),
    "cuda": Shape(widths=(128, 256, 512), blocks=2, groups=32, heads=8, side=64, batch=4),
}


class Residual(nn.Module):
    """Add two convolutions to a shortcut, and tell them the time between the two."""

    def __init__(self, inputs: int, outputs: int, shape: Shape) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.GroupNorm(shape.groups, inputs), nn.GroupNorm(shape.groups, outputs)])
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.time = nn.Linear(_embedded(shape), outputs)
        self.shortcut = nn.Identity() if inputs == outputs else nn.Conv2d(inputs, outputs, 1)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        """Map (batch, inputs, side, side) to (batch, outputs, side, side)."""
        y = self.first(functional.silu(self.norms[0](x))) + self.time(time)[:, :, None, None]
        added: Tensor = self.second(functional.silu(self.norms[1](y))) + self.shortcut(x)
        return added


class Attention(nn.Module):
    """Let every place of an image attend to every other."""

    def __init__(self, width: int, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.norm = nn.GroupNorm(shape.groups, width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, width, side, side) to the same shape."""
        places = self.norm(x).flatten(2).transpose(1, 2)
        parts = self.qkv(places).chunk(3, -1)
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
        attended = functional.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(-2)
        mixed: Tensor = self.out(attended).transpose(1, 2).unflatten(-1, x.shape[-2:])
        return x + mixed


class UNet(nn.Module):
    """Predict the noise in a latent image."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        widths, embedded = shape.widths, _embedded(shape)
        self.frequencies = nn.Buffer(torch.exp(torch.linspace(0, -9, widths[0] // 2)))
        self.time = nn.Sequential(nn.Linear(widths[0], embedded), nn.SiLU(), nn.Linear(embedded, embedded))
        self.enter = nn.Conv2d(_CHANNELS, widths[0], 3, padding=1)
        skips = [widths[0]]
        self.down, self.shrink = nn.ModuleList(), nn.ModuleList()
        for before, width in zip(widths[:1] + widths, widths, strict=False):
            inputs = [before] + [width] * (shape.blocks - 1)
            self.down.append(nn.ModuleList([Residual(size, width, shape) for size in inputs]))
            self.shrink.append(nn.Conv2d(width, width, 3, 2, 1))
            skips += [width] * shape.blocks
        self.middle = nn.ModuleList([Residual(widths[-1], widths[-1], shape) for _ in range(2)])
        self.attention = Attention(widths[-1], shape)
        self.up = nn.ModuleList()
        above = widths[-1]
        for width in reversed(widths):
            blocks = nn.ModuleList()
            for _ in range(shape.blocks):
                blocks.append(Residual(above + skips.pop(), width, shape))
                above = width
            self.up.append(blocks)
        self.leave = nn.Sequential(
            nn.GroupNorm(shape.groups, above), nn.SiLU(), nn.Conv2d(above, _CHANNELS, 3, padding=1)
        )

    def forward(self, latent: Tensor, step: Tensor) -> Tensor:
        """Map a latent image (batch, 4, side, side) at a step (batch,) to noise of the same shape."""
        angle = step[:, None] * self.frequencies
        time = functional.silu(self.time(torch.cat([angle.cos(), angle.sin()], -1)))
        x = self.enter(latent)
        skips = []
        for blocks, shrink in zip(self.down, self.shrink, strict=True):
            for block in cast("nn.ModuleList", blocks):
                x = block(x, time)
                skips.append(x)
            x = shrink(x)
        x = self.middle[1](self.attention(self.middle[0](x, time)), time)
        for blocks in self.up:
            x = functional.interpolate(x, scale_factor=2.0, mode="nearest")
            for block in cast("nn.ModuleList", blocks):
                x = block(torch.cat([x, skips.pop()], 1), time)
        noise: Tensor = self.leave(x)
        return noise


def make(size: Size) -> Case:
    """Make the model, a batch of latent images and their steps."""
    shape = _SHAPES[size]
    latent = torch.randn(shape.batch, _CHANNELS, shape.side, shape.side)
    return Case(model=UNet(shape), example=(latent, torch.full((shape.batch,), 500.0)))


def _embedded(shape: Shape) -> int:
    """Tell how many features stand for the step."""
    return 4 * shape.widths[0]
