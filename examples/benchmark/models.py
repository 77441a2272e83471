"""Two models with random weights, in plain torch: a transformer and a convolutional net, both in inference."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

SEED = 20
WIDTH = 192
HEADS = 6
VOCABULARY = 1000
STAGES = (32, 64, 128, 256)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A model and what it is given."""

    model: nn.Module
    example: Tensor


class Attention(nn.Module):
    """Attend causally, with rotated positions."""

    def __init__(self) -> None:
        super().__init__()
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.out = nn.Linear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, WIDTH) to the same shape."""
        query, key, value = (part.unflatten(-1, (HEADS, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, -1))
        attended = functional.scaled_dot_product_attention(_rotated(query), _rotated(key), value, is_causal=True)
        mixed: Tensor = self.out(attended.transpose(1, 2).flatten(-2))
        return mixed


class Block(nn.Module):
    """Add attention and a gated feed-forward net to the residual stream."""

    def __init__(self) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)])
        self.attention = Attention()
        self.gate = nn.Linear(WIDTH, 4 * WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, length, WIDTH) to the same shape."""
        x = x + self.attention(self.norms[0](x))
        y = self.norms[1](x)
        added: Tensor = x + self.down(functional.silu(self.gate(y)) * self.up(y))
        return added


class Transformer(nn.Module):
    """Predict the next token, as GPT does."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(VOCABULARY, WIDTH)
        self.blocks = nn.Sequential(*(Block() for _ in range(depth)))
        self.norm = nn.LayerNorm(WIDTH)
        self.head = nn.Linear(WIDTH, VOCABULARY, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map tokens (batch, length) to log-probabilities (batch, length, VOCABULARY)."""
        return functional.log_softmax(self.head(self.norm(self.blocks(self.embedding(tokens)))), -1)


class Residual(nn.Module):
    """Add two convolutions to a shortcut, as ResNet does."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = _convolution(inputs, outputs, stride)
        self.second = _convolution(outputs, outputs, 1)
        self.shortcut = nn.Identity() if inputs == outputs else _convolution(inputs, outputs, stride, size=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, inputs, height, width) to (batch, outputs, height / stride, width / stride)."""
        return functional.relu(self.second(functional.relu(self.first(x))) + self.shortcut(x))


class ResNet(nn.Module):
    """Classify images."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        layers: list[nn.Module] = [_convolution(3, STAGES[0], 2, size=7), nn.ReLU(), nn.MaxPool2d(3, 2, 1)]
        for before, width in zip(STAGES[:1] + STAGES, STAGES, strict=False):
            layers.append(Residual(before, width, 1 if width == STAGES[0] else 2))
            layers += [Residual(width, width, 1) for _ in range(depth - 1)]
        self.layers = nn.Sequential(*layers)
        self.head = nn.Linear(STAGES[-1], VOCABULARY)

    def forward(self, images: Tensor) -> Tensor:
        """Map images (batch, 3, height, width) to probabilities (batch, VOCABULARY)."""
        return functional.softmax(self.head(self.layers(images).mean((2, 3))), -1)


def build(name: str, *, quick: bool) -> Case:
    """Make a model by name, with the weights and the input that every process gets."""
    torch.manual_seed(SEED)
    if name == "transformer":
        model: nn.Module = Transformer(1 if quick else 6)
        return Case(model=model.eval(), example=torch.randint(VOCABULARY, (2, 64)))
    model = ResNet(1 if quick else 2)
    return Case(model=model.eval(), example=torch.randn(2, 3, 64 if quick else 128, 64 if quick else 128))


def _convolution(inputs: int, outputs: int, stride: int, *, size: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs))


def _rotated(x: Tensor) -> Tensor:
    """Rotate pairs of features by an angle that grows with the position (RoPE, arXiv:2104.09864)."""
    half = x.shape[-1] // 2
    frequency = 10000 ** (-torch.arange(half, device=x.device) / half)
    angle = torch.arange(x.shape[-2], device=x.device)[:, None] * frequency
    left, right = x.chunk(2, -1)
    return torch.cat([left * angle.cos() - right * angle.sin(), left * angle.sin() + right * angle.cos()], -1)
