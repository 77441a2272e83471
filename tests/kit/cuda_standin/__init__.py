"""A stand-in for CUDA, with which a CUDA build of PyTorch compiles for a GPU that is not there."""

import shutil
from pathlib import Path

from tests.kit.cuda_standin.building import HEADERS, build
from tests.kit.cuda_standin.host import Hosts, Start

__all__ = ["Hosts", "Start", "build", "missing", "site_packages"]


def site_packages() -> Path:
    """Find the folder that torch is installed in."""
    import torch

    return Path(torch.__file__).parents[1]


def missing() -> str:
    """Say what the stand-in lacks here; empty if it lacks nothing."""
    import torch

    if not (torch.version.cuda or "").startswith("13."):
        return "torch is no build for CUDA 13"
    if not (site_packages() / HEADERS / "cuda.h").exists():
        return "CUDA's headers, which come with torch from PyPI, are not beside it"
    tools = [name for name in ("gcc", "nm") if not shutil.which(name)]
    return f"{' and '.join(tools)} not found" if tools else ""
