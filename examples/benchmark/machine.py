"""What the results depend on: the machine and the versions."""

import os
import platform
import re
import subprocess
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path

from megacache import __version__

_PACKAGES = ("torch", "fsspec", "s3fs", "aiobotocore", "zstandard", "moto")


def versions() -> Mapping[str, str]:
    """Name the versions of all that takes part."""
    return {
        "megacache": __version__,
        "python": platform.python_version(),
        **{package: metadata.version(package) for package in _PACKAGES},
    }


def facts() -> Mapping[str, object]:
    """Describe this machine."""
    return {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 1e9),
        "load_average": os.getloadavg(),
        "commit": _commit(),
        "versions": versions(),
    }


def _commit() -> str:
    """Name the commit, with a mark if files differ from it; empty outside a checkout."""
    argv = ["git", "describe", "--always", "--dirty"]
    return subprocess.run(argv, cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout.strip()


def _cpu() -> str:
    match = re.search(r"^model name\s*:\s*(.*)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    return match[1] if match else platform.machine()
