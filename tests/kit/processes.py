"""Run child programs in fresh processes, each with its own cache folder."""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.servers.fake_gcs import ENVIRONMENT as GCS_ENVIRONMENT

REPOSITORY = Path(__file__).parents[2]
TIMEOUT = 300.0

Step = tuple[str, dict[str, Any]]
Answer = dict[str, Any]


def step(name: str, /, **options: Any) -> Step:
    """Name a step of `tests.kit.child` and its arguments."""
    return name, options


@dataclass(slots=True)
class Running:
    """A child that has started."""

    popen: subprocess.Popen[str]
    stdout: str = ""
    stderr: str = ""

    def exit_status(self) -> int:
        """Wait for the end; a negative status is the signal that the process died of."""
        try:
            self.stdout, self.stderr = self.popen.communicate(timeout=TIMEOUT)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.stdout, self.stderr = self.popen.communicate()
            raise
        return self.popen.returncode

    def answers(self) -> list[Answer]:
        """Wait for the end and give the answer of each step."""
        if self.popen.returncode is None:
            self.exit_status()
        assert self.popen.returncode == 0, f"exit status {self.popen.returncode}\n{self.stderr[-4000:]}"
        found: list[Answer] = json.loads(self.stdout.splitlines()[-1])
        return found


class Processes:
    """Starts children; each has an empty cache folder that holds nothing but the compiler's ISA probes."""

    def __init__(self, folder: Path, probes: Path | None) -> None:
        self._folder = folder
        self._probes = probes
        self._started = 0

    def new_folder(self) -> Path:
        """Make a cache folder without any artifact."""
        self._started += 1
        folder = self._folder / f"inductor-{self._started}"
        if self._probes is None:
            folder.mkdir(parents=True)
        else:
            shutil.copytree(self._probes, folder)
        return folder

    def start(
        self, *steps: Step, environment: Mapping[str, str | None] | None = None, folder: Path | str | None = None
    ) -> Running:
        """Start a child and return at once; a variable of None is taken out of its environment."""
        variables: dict[str, str | None] = {
            **os.environ,
            **GCS_ENVIRONMENT,
            "TORCHINDUCTOR_CACHE_DIR": str(folder or self.new_folder()),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            **(environment or {}),
        }
        popen = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.child", json.dumps(steps)],
            cwd=REPOSITORY,
            env={name: value for name, value in variables.items() if value is not None},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        return Running(popen)

    def run(
        self, *steps: Step, environment: Mapping[str, str | None] | None = None, folder: Path | str | None = None
    ) -> Sequence[Answer]:
        """Start a child and wait for its answers."""
        return self.start(*steps, environment=environment, folder=folder).answers()


def keep_probes(folder: Path, target: Path) -> None:
    """Copy what the compiler's ISA picker compiled, which is the same for every model and holds no artifact."""
    for library in folder.glob("??/*.so"):
        if not library.name.endswith(".main.so"):
            (target / library.parent.name).mkdir(parents=True, exist_ok=True)
            shutil.copy2(library, target / library.parent.name)


def run_code(code: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    """Run some code in a process of its own."""
    return subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
