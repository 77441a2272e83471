"""Triton kernels as users write them."""
# ruff: noqa: ANN001, ANN202, N803
# mypy: disable-error-code="no-untyped-def,misc,untyped-decorator"

import torch
import triton
import triton.language as tl


@triton.jit
def _add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) + tl.load(y + at, mask=at < n), mask=at < n)


@triton.autotune([triton.Config({"BLOCK": size}) for size in (128, 256, 512)], key=["n"])
@triton.jit
def _tuned_add(x, y, out, n, BLOCK: tl.constexpr):
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    tl.store(out + at, tl.load(x + at, mask=at < n) + tl.load(y + at, mask=at < n), mask=at < n)


def added(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Add by a kernel."""
    out = torch.empty_like(x)
    _add[(triton.cdiv(x.numel(), 256),)](x, y, out, x.numel(), BLOCK=256)
    return out


def tuned(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """Add by a kernel that is tuned at its first call."""
    out = torch.empty_like(x)
    n = x.numel()
    _tuned_add[lambda meta: (triton.cdiv(n, meta["BLOCK"]),)](x, y, out, n)
    return out
