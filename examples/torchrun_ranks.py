"""Train on several ranks.

Nothing here knows of megacache; `megacache run` looks after every rank that torchrun starts:

    megacache run s3://bucket/ranks/v1 -- torchrun --standalone --nproc-per-node 2 torchrun_ranks.py

Ranks that compile the same write one bundle between them, whichever comes first, and load the same bundles, or none. By
explicit calls it is the same: each rank calls `megacache.warm()` after `init_process_group`, and `megacache.publish()`
after it has compiled its backward.
"""

import os

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


class Regression(nn.Module):
    """Map 16 numbers to one."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(16, 32), nn.GELU(), nn.Linear(32, 1))

    def forward(self, x: Tensor) -> Tensor:
        """Map (batch, 16) to (batch, 1)."""
        result: Tensor = self.layers(x)
        return result


# PyTorch's keys hold the number of the GPU. Each rank sees one, as device 0, so that all share what one has compiled.
if gpus := os.environ.get("CUDA_VISIBLE_DEVICES", "0,1,2,3,4,5,6,7"):
    os.environ["CUDA_VISIBLE_DEVICES"] = gpus.split(",")[int(os.environ["LOCAL_RANK"])]

torch.manual_seed(0)
dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
rank, size = dist.get_rank(), dist.get_world_size()
device = torch.device("cuda", 0) if torch.cuda.is_available() else torch.device("cpu")

net = Regression().to(device)
model = torch.compile(DistributedDataParallel(net, device_ids=[device.index] if device.index is not None else None))
optimizer = torch.optim.SGD(net.parameters(), lr=0.05)
loss = torch.zeros((), device=device)
for step in range(4):
    generator = torch.Generator().manual_seed(step * size + rank)
    x = torch.randn(8, 16, generator=generator).to(device)
    loss = nn.functional.mse_loss(model(x), x.mean(1, keepdim=True))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()

dist.all_reduce(loss)
if rank == 0:
    print("output:", loss.item())
dist.destroy_process_group()
