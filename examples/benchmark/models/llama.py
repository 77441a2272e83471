"""A stack of Llama's blocks: RMSNorm, rotated positions, grouped-query attention, SwiGLU (arXiv:2307.09288)."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.benchmark.models.case import Case, Size

_ROPE_BASE = 10000


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the model is."""

    depth: int
    width: int
    heads: int
    groups: int
    """Heads of keys and values, each shared by several heads of queries."""
    inner: int
    """Width of the feed-forward net."""
    length: int
    batch: int
    vocabulary: int


_SHAPES: Mapping[Size, Shape] = {
    "quick": Shape(depth=1, width=64, heads=4, groups=2, inner=172, length=32, batch=1, vocabulary=500),
    "cpu": Shape(depth=10, width=192, heads=6, groups=2, inner=512, length=64, batch=1, vocabulary=2000),
    "cuda": Shape(depth=12, width=1024, heads=16, groups=4, inner=2816, length=512, batch=4, vocabulary=32000),
}


class Attention(nn.Module):
    """Attend to what came before, with few keys and values for many queries."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.size = shape.width // shape.heads
        self.query = nn.Linear(shape.width, shape.width, bias=False)
        self.key = nn.Linear(shape.width, shape.groups * self.size, bias=False)
        self.value = nn.Linear(shape.width, shape.groups * self.size, bias=False)
        self.out = nn.Linear(shape.width, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, width) to the same shape."""
        query, key, value = (
            part(x).unflatten(-1, (-1, self.size)).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        attended = functional.scaled_dot_product_attention(
            _rotated(query), _rotated(key), value, is_causal=True, enable_gqa=True
        )
        mixed: Tensor = self.out(attended.transpose(1, 2).flatten(-2))
        return mixed


class Block(nn.Module):
    """Add attention and a gated feed-forward net to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.before_attention, self.before_net = nn.RMSNorm(shape.width), nn.RMSNorm(shape.width)
        self.attention = Attention(shape)
        self.gate = nn.Linear(shape.width, shape.inner, bias=False)
        self.up = nn.Linear(shape.width, shape.inner, bias=False)
        self.down = nn.Linear(shape.inner, shape.width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, width) to the same shape."""
        x = x + self.attention(self.before_attention(x))
        y = self.before_net(x)
        added: Tensor = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return added


class Llama(nn.Module):
    """Predict the next token."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.embedding = nn.Embedding(shape.vocabulary, shape.width)
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.depth)))
        self.norm = nn.RMSNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (batch, length) to log-probabilities (batch, length, vocabulary)."""
        return functional.log_softmax(self.head(self.norm(self.blocks(self.embedding(tokens)))), -1)


def make(size: Size) -> Case:
    """Make the model and some rows of tokens."""
    shape = _SHAPES[size]
    return Case(model=Llama(shape), example=(torch.randint(shape.vocabulary, (shape.batch, shape.length)),))


def _rotated(x: Tensor) -> Tensor:
    """Rotate pairs of features by an angle that grows with the position (RoPE, arXiv:2104.09864)."""
    half = x.shape[-1] // 2
    frequency = _ROPE_BASE ** (-torch.arange(half, device=x.device) / half)
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * frequency
    left, right = x.chunk(2, -1)
    return torch.cat([left * angle.cos() - right * angle.sin(), left * angle.sin() + right * angle.cos()], -1)
