"""A stack of GPT-2's blocks: layer norms, learned positions, full attention, GELU."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from examples.benchmark.models.case import Case, Size


@dataclass(frozen=True, slots=True, kw_only=True)
class Shape:
    """How large the model is."""

    depth: int
    width: int
    heads: int
    length: int
    """Tokens in a row."""
    batch: int
    vocabulary: int


_SHAPES: Mapping[Size, Shape] = {
    "quick": Shape(depth=1, width=64, heads=4, length=32, batch=1, vocabulary=500),
    "cpu": Shape(depth=12, width=192, heads=6, length=64, batch=1, vocabulary=2000),
    "cuda": Shape(depth=12, width=768, heads=12, length=512, batch=4, vocabulary=50257),
}


class Attention(nn.Module):
    """Attend to what came before."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.heads = shape.heads
        self.qkv = nn.Linear(shape.width, 3 * shape.width)
        self.out = nn.Linear(shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, width) to the same shape."""
        query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        attended = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        mixed: Tensor = self.out(attended.transpose(1, 2).flatten(-2))
        return mixed


class Block(nn.Module):
    """Add attention and a feed-forward net to the residual stream."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.before_attention, self.before_net = nn.LayerNorm(shape.width), nn.LayerNorm(shape.width)
        self.attention = Attention(shape)
        self.up = nn.Linear(shape.width, 4 * shape.width)
        self.down = nn.Linear(4 * shape.width, shape.width)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, width) to the same shape."""
        x = x + self.attention(self.before_attention(x))
        added: Tensor = x + self.down(functional.gelu(self.up(self.before_net(x)), approximate="tanh"))
        return added


class Gpt(nn.Module):
    """Predict the next token."""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.tokens = nn.Embedding(shape.vocabulary, shape.width)
        self.positions = nn.Embedding(shape.length, shape.width)
        self.blocks = nn.Sequential(*(Block(shape) for _ in range(shape.depth)))
        self.norm = nn.LayerNorm(shape.width)
        self.head = nn.Linear(shape.width, shape.vocabulary, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (batch, length) to log-probabilities (batch, length, vocabulary)."""
        places = torch.arange(tokens.shape[-1], device=tokens.device)
        x = self.blocks(self.tokens(tokens) + self.positions(places))
        return functional.log_softmax(self.head(self.norm(x)), -1)


def make(size: Size) -> Case:
    """Make the model and some rows of tokens."""
    shape = _SHAPES[size]
    return Case(model=Gpt(shape), example=(torch.randint(shape.vocabulary, (shape.batch, shape.length)),))
