"""Compile a small network once, and start warm ever after.

Run it twice; the second process compiles nothing. The folder for PyTorch's own cache is a new one each time, as in a
new container:

    export MEGACACHE_URL=s3://bucket/quick-start/v1     # or a folder; without it, one under ~/.cache
    TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) python quick_start.py
"""

import torch
from torch import nn

import megacache

torch.manual_seed(0)
device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
net = nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 10)).to(device)
batch = torch.linspace(-1, 1, 8 * 64, device=device).reshape(8, 64)

with megacache.synchronized() as sync, torch.no_grad():
    output = torch.compile(net)(batch)

print("warm:", sync.warmed)
print("publish:", sync.published)
print("receipt:", sync.receipt)
print("output:", output.double().sum().item())
