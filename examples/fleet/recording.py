"""Real compilations, recorded, so that a worker can have compiled without compiling."""

import pickle
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from megacache._settings import child_environment
from tests.kit.processes import REPOSITORY

SECONDS = 600.0
"""After which a recording is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Compilation:
    """What compiling one model has left."""

    model: str
    artifacts: Sequence[tuple[str, str, bytes]]
    """Kind, key and content."""
    libraries: Sequence[tuple[str, bytes]]
    """Path in PyTorch's cache folder, and content."""
    seconds: float

    @property
    def graphs(self) -> Sequence[str]:
        """Keys of the graphs."""
        return [key for kind, key, _ in self.artifacts if kind == "inductor"]


def record(file: Path, models: Sequence[str], folder: Path) -> None:
    """Compile models in a process of its own, with a folder for PyTorch's cache."""
    command = [sys.executable, "-m", "examples.fleet.compiling", str(file), *models]
    variables = {"TORCHINDUCTOR_CACHE_DIR": str(folder), "TORCHINDUCTOR_COMPILE_THREADS": "1"}
    subprocess.run(command, cwd=REPOSITORY, env=child_environment(variables), check=True, timeout=SECONDS)


def read(file: Path) -> tuple[Compilation, ...]:
    """Read what was recorded."""
    recorded: tuple[Compilation, ...] = pickle.loads(file.read_bytes())
    return recorded
