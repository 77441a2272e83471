"""Programs that compile for a GPU; each runs its graphs as often as it takes until nothing new would be compiled."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

WIDTH = 256


def pointwise() -> None:
    """Fuse pointwise operations and reductions into one graph."""
    with torch.no_grad():
        torch.compile(_normalised)(*_inputs())


def train() -> None:
    """Go forward and backward, which makes two graphs."""
    weights = [one.requires_grad_() for one in _inputs()]
    loss: Any = torch.compile(lambda *inputs: functional.silu(_normalised(*inputs)).sum())(*weights)
    loss.backward()


def growing() -> None:
    """Grow, so that the second size makes the shape dynamic."""
    compiled = torch.compile(lambda x: torch.softmax(x.sin() * x.shape[0], -1))
    with torch.no_grad():
        for rows in (16, 48, 80):
            compiled(torch.zeros(rows, 512, device="cuda"))


def dynamic() -> None:
    """Make all shapes dynamic, and the `eps` of a LayerNorm with them, for it is a float."""
    compiled = torch.compile(nn.Sequential(nn.GELU(), nn.LayerNorm(WIDTH, eps=3e-5)).to("cuda"), dynamic=True)
    with torch.no_grad():
        for rows in (16, 48):
            compiled(torch.zeros(rows, WIDTH, device="cuda"))


def growing_norm() -> None:
    """Let a shape and a float that is an argument become dynamic by themselves."""
    compiled = torch.compile(lambda x, eps: functional.layer_norm(x.sin(), (WIDTH,), eps=eps))
    with torch.no_grad():
        for rows, eps in ((16, 1e-5), (48, 2e-5), (80, 3e-5)):
            compiled(torch.zeros(rows, WIDTH, device="cuda"), eps)


def tuned() -> None:
    """Tune pointwise kernels and reductions by measuring, and the winners by coordinate descent."""
    with torch.no_grad():
        compiled = torch.compile(
            lambda x: ((x.t().contiguous() + 1).sum(-1), x.amax(0)), mode="max-autotune-no-cudagraphs"
        )
        compiled(torch.zeros(4096, 2048, device="cuda"))


def matmul() -> None:
    """Choose among Triton's templates for a product of matrices; cuBLAS cannot run here."""
    import torch._inductor.config

    torch._inductor.config.max_autotune_gemm_backends = "TRITON"
    x, w = (torch.zeros(512, 512, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    with torch.no_grad():
        torch.compile(lambda x, w: torch.relu(x @ w), mode="max-autotune-no-cudagraphs")(x, w)


def user_kernel() -> None:
    """Call a Triton kernel of the user's in a graph."""
    from tests.kit.cuda_standin import kernels

    with torch.no_grad():
        torch.compile(lambda x: kernels.added(x.sin(), x) * 2)(torch.zeros(4096, device="cuda"))


def user_outside() -> None:
    """Call a Triton kernel of the user's outside of any graph, after there was one."""
    from tests.kit.cuda_standin import kernels

    pointwise()
    x = torch.zeros(4096, device="cuda")
    kernels.added(x, x)


def user_gone() -> None:
    """Call such a kernel, and lose all files of Triton's before they can be published."""
    user_outside()
    for folder in (Path(os.environ["TORCHINDUCTOR_CACHE_DIR"], "triton"), Path.home() / ".triton"):
        shutil.rmtree(folder, ignore_errors=True)


def user_before() -> None:
    """Call a Triton kernel of the user's before there is a graph, when Inductor has not yet chosen Triton's folder."""
    from tests.kit.cuda_standin import kernels

    x = torch.zeros(4096, device="cuda")
    kernels.added(x, x)
    pointwise()


def user_tuned() -> None:
    """Call a Triton kernel of the user's in a graph, with `@triton.autotune`."""
    from tests.kit.cuda_standin import kernels

    with torch.no_grad():
        torch.compile(lambda x: kernels.tuned(x.sin(), x) * 2)(torch.zeros(4096, device="cuda"))


def cudagraphs() -> None:
    """Record CUDA graphs in the second call, and replay them in the fourth."""
    compiled = torch.compile(lambda x: torch.softmax(x.sin() * 2, -1), mode="reduce-overhead")
    with torch.no_grad():
        for _ in range(4):
            compiled(torch.zeros(64, 512, device="cuda"))


def mixed() -> None:
    """Compile a graph for the GPU and one for the CPU."""
    compiled = torch.compile(lambda x: torch.softmax(x.sin() * 2, -1))
    with torch.no_grad():
        for device in ("cuda", "cpu"):
            compiled(torch.zeros(64, 512, device=device))


def flex() -> None:
    """Compile attention with a score of the user's."""
    from torch.nn.attention.flex_attention import flex_attention

    q, k, v = (torch.zeros(1, 2, 256, 64, device="cuda", dtype=torch.float16) for _ in range(3))
    with torch.no_grad():
        torch.compile(flex_attention)(q, k, v, score_mod=lambda score, _batch, _head, i, j: score + (i - j))


PROGRAMS: dict[str, Callable[[], None]] = {
    one.__name__: one
    for one in (
        pointwise,
        train,
        growing,
        dynamic,
        growing_norm,
        tuned,
        matmul,
        user_kernel,
        user_outside,
        user_gone,
        user_before,
        user_tuned,
        cudagraphs,
        mixed,
        flex,
    )
}


def _normalised(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return torch.softmax(functional.layer_norm(functional.gelu(x) * 2, (WIDTH,), weight, bias), -1)


def _inputs() -> list[Any]:
    x = torch.linspace(-1, 1, 64 * WIDTH).reshape(64, WIDTH).to("cuda")
    return [x, torch.ones(WIDTH, device="cuda"), torch.zeros(WIDTH, device="cuda")]
