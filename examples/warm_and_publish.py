"""Warm and publish by explicit calls, and fail if the cache could not be filled: a job that runs before a roll-out.

What it publishes carries the commit as a label, and what was not found is explained:

    export MEGACACHE_URL=s3://bucket/classifier/v1
    TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) GITHUB_SHA=$(git rev-parse HEAD) python warm_and_publish.py
"""

import os

import torch
from torch import Tensor, nn

import megacache


class Classifier(nn.Module):
    """Sort sequences of 16 tokens into 4 classes."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(100, 32)
        self.mixing = nn.Linear(16, 16)
        self.head = nn.Sequential(nn.LayerNorm(32), nn.Linear(32, 4))

    def forward(self, tokens: Tensor) -> Tensor:
        """Map (batch, 16) to probabilities (batch, 4)."""
        x = self.embedding(tokens)
        x = x + self.mixing(x.transpose(1, 2)).transpose(1, 2).relu()
        probabilities: Tensor = self.head(x.mean(1)).softmax(-1)
        return probabilities


torch.manual_seed(0)
device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
model = Classifier().to(device)
tokens = torch.arange(8 * 16, device=device).reshape(8, 16) % 100

# Before the first compilation. Whatever fails here costs at most the timeout, and the process goes on cold.
print("warm:", megacache.warm(timeout=30))

with torch.no_grad():
    output = torch.compile(model)(tokens)
print("output:", output[:, 0].double().sum().item())

receipt = megacache.receipt()
print("receipt:", receipt)
for warning in receipt.warnings:
    print("warning:", warning)
if receipt.inductor is None or receipt.inductor.missed:
    print("explain:", megacache.explain())

# After the model has run. Only what the store does not hold is uploaded.
published = megacache.publish(timeout=120, labels={"commit": os.environ.get("GITHUB_SHA", "unknown")})
print("publish:", published)
if not published:
    raise SystemExit(f"the cache is not filled: {published}")
