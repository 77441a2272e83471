"""Train with a checkpoint; kill it at any time, and the next start is warm and resumes at its step.

The arguments are the file of the checkpoint, and the step at which to end:

    export MEGACACHE_URL=s3://bucket/trainer/v1
    TORCHINDUCTOR_CACHE_DIR=$(mktemp -d) python training_restart.py checkpoint.pt 1000
"""

import sys
from pathlib import Path

import torch
from torch import Tensor, nn

import megacache

checkpoint, steps = Path(sys.argv[1]), int(sys.argv[2])
torch.manual_seed(0)
device = torch.accelerator.current_accelerator(check_available=True) or torch.device("cpu")
net = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 1)).to(device)
optimizer = torch.optim.SGD(net.parameters(), lr=0.01, momentum=0.9)
compiled = torch.compile(net)


def batch_of(step: int) -> Tensor:
    """Draw the batch of a step, the same whenever it is drawn."""
    return torch.randn(8, 16, generator=torch.Generator().manual_seed(step)).to(device)


def train(step: int) -> Tensor:
    """Take one step and give its loss."""
    x = batch_of(step)
    loss = nn.functional.mse_loss(compiled(x), x.mean(1, keepdim=True))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    return loss.detach()


def save(step: int) -> None:
    """Replace the checkpoint in one move, so that a kill leaves the old one or the new one."""
    temporary = checkpoint.with_suffix(".tmp")
    torch.save({"step": step, "net": net.state_dict(), "optimizer": optimizer.state_dict()}, temporary)
    temporary.replace(checkpoint)


first = 0
if checkpoint.exists():
    state = torch.load(checkpoint, map_location=device)
    net.load_state_dict(state["net"])
    optimizer.load_state_dict(state["optimizer"])
    first = state["step"]
print("starts at step", first)
print("warm:", megacache.warm())
loss = torch.tensor(0.0)
for step in range(first, steps):
    loss = train(step)
    if step == first:
        # Forward and backward are compiled by now; the upload does not hold up the next steps.
        print("receipt:", megacache.receipt(), flush=True)
        megacache.publish(wait=False).add_done_callback(lambda done: print("publish:", done.result(), flush=True))
    if (step + 1) % 100 == 0 or step + 1 == steps:
        save(step + 1)
print("output:", loss.item())
