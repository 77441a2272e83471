"""A ResNet of bottlenecks; with 3, 8, 36 and 3 of them it is a ResNet-152 (arXiv:1512.03385, table 1)."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.benchmark.models.case import Case, Size

_EXPANSION = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the net is."""

    blocks: tuple[int, ...]
    """Bottlenecks in each stage."""
    width: int
    """Inner channels of the first stage; each later one has twice as many."""
    side: int
    """Pixels along an edge of an image."""
    batch: int
    classes: int = 1000


_SHAPES: Mapping[Size, Shape] = {
    "quick": Shape(blocks=(1, 1, 2, 1), width=8, side=64, batch=1),
    "cpu": Shape(blocks=(3, 8, 36, 3), width=16, side=64, batch=1),
    "cuda": Shape(blocks=(3, 8, 36, 3), width=64, side=224, batch=16),
}


class Bottleneck(nn.Module):
    """Add three convolutions, the middle one narrow, to a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = width * _EXPANSION
        self.reduce = _convolution(inputs, width, 1)
        self.middle = _convolution(width, width, 3, stride)
        self.expand = _convolution(width, outputs, 1)
        same = inputs == outputs and stride == 1
        self.shortcut = nn.Identity() if same else _convolution(inputs, outputs, 1, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, 4 · width, height / stride, width / stride)."""
        y = functional.relu(self.reduce(x))
        y = functional.relu(self.middle(y))
        return functional.relu(self.expand(y) + self.shortcut(x))


class ResNet(nn.Module):
    """Classify images."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.stem = nn.Sequential(_convolution(3, shape.width, 7, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        stages: list[nn.Module] = []
        inputs = shape.width
        for number, count in enumerate(shape.blocks):
            width = shape.width * 2**number
            for block in range(count):
                stages.append(Bottleneck(inputs, width, 2 if number and not block else 1))
                inputs = width * _EXPANSION
        self.stages = nn.Sequential(*stages)
        self.head = nn.Linear(inputs, shape.classes)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, 3, height, width) to logits (batch, classes)."""
        features: Tensor = self.stages(self.stem(images))
        logits: Tensor = self.head(features.mean((2, 3)))
        return logits


def make(size: Size) -> Case:
    """Make the net and a batch of images."""
    shape = _SHAPES[size]
    return Case(model=ResNet(shape), example=(torch.randn(shape.batch, 3, shape.side, shape.side),))


def make_with_cudagraphs(size: Size) -> Case:
    """Make the same, compiled with CUDA graphs and without a break, as fal does: 21.1 s cold and 8.9 s warm, it says.

    https://docs.fal.ai/serverless/optimizations/optimize-startup-with-compiled-caches, which names no shape.
    """
    return replace(make(size), options={"mode": "reduce-overhead", "fullgraph": True})


def _convolution(inputs: int, outputs: int, size: int, stride: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))
