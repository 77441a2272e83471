"""What the results depend on: the machine and the versions."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from megacache import __version__

_PACKAGES = ("torch", "triton", "fsspec", "s3fs", "aiobotocore", "zstandard", "moto", "fal", "b10-transfer", "redis")


def versions() -> Mapping[str, str]:
    """Name the versions of all that takes part and is installed."""
    own = {"megacache": __version__, "python": platform.python_version()}
    return own | {package: version for package in _PACKAGES if (version := _version(package))}


def gpu() -> str:
    """Name the GPU that torch sees; empty if there is none."""
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else ""


def facts() -> Mapping[str, object]:
    """Describe this machine."""
    return {
        "cpu": _cpu(),
        "gpu": gpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "load_average": os.getloadavg(),
        "commit": _commit(),
        "versions": versions(),
    }


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _commit() -> str:
    """Name the commit, with a mark if files differ from it; `unknown` without git or outside a checkout."""
    argv = ["git", "describe", "--always", "--dirty"]
    try:
        done = subprocess.run(argv, cwd=Path(__file__).parent, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return "unknown"
    return done.stdout.strip() or "unknown"


def _cpu() -> str:
    match = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()
