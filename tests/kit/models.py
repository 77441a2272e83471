"""Small real models, each compiled and run once; they return the tensors to compare."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def _compiled(function: Callable[..., Any], *, compiled: bool, **options: Any) -> Callable[..., Any]:
    return torch.compile(function, **options) if compiled else function


def _net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 4))


def _batch(rows: int) -> Tensor:
    return torch.linspace(-1, 1, rows * 16).reshape(rows, 16).clone()


def inference(*, compiled: bool = True, rows: int = 8, device: str = "cpu") -> list[Tensor]:
    """Run a small network without gradients."""
    with torch.no_grad():
        return [_compiled(_net().to(device), compiled=compiled)(_batch(rows).to(device))]


def training(*, compiled: bool = True, backward: bool = True) -> list[Tensor]:
    """Run a small network forward and backward."""
    net = _net()
    loss = _compiled(net, compiled=compiled)(_batch(8)).square().mean()
    if not backward:
        return [loss.detach()]
    loss.backward()
    return [loss.detach(), *(p.grad for p in net.parameters() if p.grad is not None)]


def dynamic(*, compiled: bool = True) -> list[Tensor]:
    """Run one graph on batches of several sizes."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 4))
    with torch.no_grad():
        function = _compiled(net, compiled=compiled, dynamic=True)
        return [function(_batch(rows)) for rows in (3, 5, 9)]


def normed(*, compiled: bool = True) -> list[Tensor]:
    """Run a graph with a number in it, which PyTorch first takes for a variable and then begins anew."""
    with torch.no_grad():
        return [_compiled(_net(), compiled=compiled, dynamic=True)(_batch(5))]


def broken(*, compiled: bool = True) -> list[Tensor]:
    """Run a function whose graph breaks in the middle."""

    def function(x: Tensor) -> Tensor:
        x = torch.tanh(x * 2)
        torch._dynamo.graph_break()
        return torch.sin(x) + x.mean()

    with torch.no_grad():
        return [_compiled(function, compiled=compiled)(_batch(8))]


def doubling(*, compiled: bool = True, factor: int = 2, **options: Any) -> list[Tensor]:
    """Run one small graph, to have it apart from the others."""

    def function(x: Tensor) -> Tensor:
        return torch.relu(x * factor + 1)

    with torch.no_grad():
        return [_compiled(function, compiled=compiled, **options)(_batch(8))]


def renamed(*, compiled: bool = True) -> list[Tensor]:
    """Run the graph of `doubling`, from a function whose argument has another name."""

    def function(y: Tensor) -> Tensor:
        return torch.relu(y * 2 + 1)

    with torch.no_grad():
        return [_compiled(function, compiled=compiled)(_batch(8))]


def cosine(*, compiled: bool = True) -> list[Tensor]:
    """Run another small graph."""

    def function(x: Tensor) -> Tensor:
        return torch.cos(x) - x.sum()

    with torch.no_grad():
        return [_compiled(function, compiled=compiled)(_batch(8))]


def guarded(*, compiled: bool = True, rows: int = 8) -> list[Tensor]:
    """Run a graph whose cache entry holds a guard on the batch size: two sizes share one key."""

    def function(x: Tensor) -> Tensor:
        if x.shape[0] > 64:  # leaves a guard on the size, and nothing in the graph
            return x.cos() * 2
        return x.cos() * 2

    x = _batch(rows)
    if compiled:
        torch._dynamo.mark_dynamic(x, 0)
    with torch.no_grad():
        return [_compiled(function, compiled=compiled)(x)]


def conditional(*, compiled: bool = True) -> list[Tensor]:
    """Run a graph that no cache of torch takes, for it branches on data."""

    def function(x: Tensor) -> Any:
        return torch.cond(x.sum() > 0, lambda y: y.sin() + 1, lambda y: y.cos() - 1, (x,))

    with torch.no_grad():
        return [_compiled(function, compiled=compiled)(_batch(8))]


class _Doubled(torch.autograd.Function):
    """A function with a backward of its own, which AOTAutograd's cache does not take."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.mul(2)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return (grads[0] * 2).add(x, alpha=0)


def custom_backward(*, compiled: bool = True) -> list[Tensor]:
    """Run a graph that the FX graph cache takes, and AOTAutograd's does not."""

    def function(x: Tensor) -> Tensor:
        doubled: Tensor = _Doubled.apply(x.sin())  # type: ignore[no-untyped-call]
        return doubled.sum()

    x = _batch(8).requires_grad_()
    loss = _compiled(function, compiled=compiled)(x)
    loss.backward()
    assert x.grad is not None
    return [loss.detach(), x.grad]


def reduction(*, compiled: bool = True) -> list[Tensor]:
    """Run what Inductor vectorises by hand: its steps are as wide as the vectors of the CPU that compiled it."""

    def function(x: Tensor) -> Tensor:
        return torch.softmax(x.exp(), dim=-1).cumsum(0) + x.mean(0)

    with torch.no_grad():
        return [_compiled(function, compiled=compiled)(torch.linspace(-2, 2, 4096).reshape(64, 64))]
