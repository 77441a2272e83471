"""Warm up in stages, and publish after each: single requests, batches, then a training step.

A worker that is taken away in the middle leaves what its finished stages compiled, and the next one goes on from there.
Publishing again uploads only what is new, and nothing, without asking the store, if there is nothing new.

    export MEGACACHE_URL=s3://bucket/ranker/v1
    TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) python multi_stage.py
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn

import megacache

torch.manual_seed(0)
device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
net = nn.Sequential(nn.Linear(32, 64), nn.SiLU(), nn.LayerNorm(64), nn.Linear(64, 1)).to(device)
score = torch.compile(net, dynamic=False)


@torch.compile
def top(scores: Tensor) -> Tensor:
    """Weigh the best four candidates."""
    return scores.flatten().topk(4).values.softmax(0)


def candidates(rows: int) -> Tensor:
    """Make a batch of shape (rows, 32)."""
    return torch.linspace(-1, 1, rows * 32, device=device).reshape(rows, 32)


@torch.no_grad()
def single() -> Tensor:
    """Score one candidate: the first shape."""
    result: Tensor = score(candidates(1))
    return result


@torch.no_grad()
def batched() -> Tensor:
    """Score many and choose: a second shape, and a second graph behind it."""
    return top(score(candidates(16)))


def training() -> Tensor:
    """Take one step forward and backward: both are compiled by the time that `backward` returns."""
    loss: Tensor = score(candidates(16)).square().mean()
    loss.backward()
    return loss.detach()


STAGES: tuple[Callable[[], Tensor], ...] = (single, batched, training)

print("warm:", megacache.warm())
for stage in STAGES:
    print(f"output of {stage.__name__}:", stage().double().sum().item())
    print(f"publish after {stage.__name__}:", megacache.publish())
print("publish again:", megacache.publish())
print("receipt:", megacache.receipt())
