"""Custom operators and functions that a program corrects under the same names, and small models that call them."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

FACTOR = 1.0


def define(*, mutates: bool = True, right: bool = True) -> None:
    """Define `shop::bump`, which changes its argument and says so or not, and `shop::wave`, which has a gradient."""

    @torch.library.custom_op("shop::bump", mutates_args=("x",) if mutates else ())
    def bump(x: Tensor) -> Tensor:
        x.add_(1)
        return x * 2

    @bump.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    @torch.library.custom_op("shop::wave", mutates_args=())
    def wave(x: Tensor) -> Tensor:
        return x.sin()

    @wave.register_fake
    def _(x: Tensor) -> Tensor:
        return torch.empty_like(x)

    def keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ctx.save_for_backward(inputs[0], output)

    def slope(ctx: Any, grad: Tensor) -> Any:
        return grad * ctx.saved_tensors[0].cos()

    def no_slope(ctx: Any, grad: Tensor) -> Any:
        return grad * ctx.saved_tensors[1]

    wave.register_autograd(slope if right else no_slope, setup_context=keep)


def bumped(*, compiled: bool = True) -> list[Tensor]:
    """Read a tensor again that an operator has changed."""

    def function(x: Tensor) -> Tensor:
        waves = x.sin()
        doubled: Tensor = torch.ops.shop.bump(waves)
        return waves.cos() + doubled

    with torch.no_grad():
        return [_compiled(function, compiled=compiled)(torch.linspace(0, 5, 6))]


def waved(*, compiled: bool = True) -> list[Tensor]:
    """Go backward through an operator."""

    def function(x: Tensor) -> Tensor:
        waves: Tensor = torch.ops.shop.wave(x)
        return waves.sum()

    return _gradient(_compiled(function, compiled=compiled))


def opaque(x: Tensor) -> Tensor:
    """Compute what depends on more than the arguments; Dynamo does not look into it."""
    return x.sin() * FACTOR


torch._dynamo.allow_in_graph(opaque)  # type: ignore[no-untyped-call]


def checkpointed(*, compiled: bool = True, factor: float = 1.0) -> list[Tensor]:
    """Call a function in the body of a checkpoint that Dynamo does not look into."""
    global FACTOR  # noqa: PLW0603 - what a program would change in the source of the function
    FACTOR = factor

    def body(x: Tensor) -> Tensor:
        return opaque(x) * 2

    def function(x: Tensor) -> Tensor:
        kept: Tensor = checkpoint(body, x, use_reentrant=False)
        return kept.sum()

    return _gradient(_compiled(function, compiled=compiled))


def _compiled(function: Callable[..., Any], *, compiled: bool) -> Callable[..., Any]:
    return torch.compile(function) if compiled else function


def _gradient(function: Callable[..., Any]) -> list[Tensor]:
    x = torch.linspace(0, 5, 6).requires_grad_()
    result = function(x)
    result.backward()
    assert x.grad is not None
    return [result.detach(), x.grad]
