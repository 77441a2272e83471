"""Run child programs, each in a process with its own cache folder."""

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from tests.kit import forking

REPOSITORY = Path(__file__).parents[2]
TIMEOUT = 300.0

Step = tuple[str, dict[str, Any]]
Answer = dict[str, Any]


def step(name: str, /, **options: Any) -> Step:
    """Name a step of `tests.kit.child` and its arguments."""
    return name, options


JOB = step("configure", name="compiler.config.job_id", value="job")
"""Let PyTorch keep profiles of dynamic shapes, as TORCH_COMPILE_JOB_ID does."""


class Process(Protocol):
    """A child as the system sees it."""

    returncode: int | None
    """Its exit status; None as long as it runs."""

    def poll(self) -> int | None:
        """Give its exit status if it has ended."""

    def wait(self, timeout: float) -> int:
        """Wait for its end; a negative status is the signal that it died of."""

    def kill(self) -> None:
        """Kill it, if it has not ended."""


@dataclass(frozen=True, slots=True)
class Running:
    """A child that has started."""

    process: Process
    _stdout: IO[str]
    _stderr: IO[str]

    def exit_status(self) -> int:
        """Wait for the end; a negative status is the signal that the process died of."""
        try:
            return self.process.wait(TIMEOUT)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait(TIMEOUT)
            raise

    @property
    def stdout(self) -> str:
        """What it has printed."""
        return _content(self._stdout)

    @property
    def stderr(self) -> str:
        """What it has said."""
        return _content(self._stderr)

    def answers(self) -> list[Answer]:
        """Wait for the end and give the answer of each step."""
        status = self.exit_status()
        assert status == 0, f"exit status {status}\n{self.stderr[-4000:]}"
        found: list[Answer] = json.loads(self.stdout.splitlines()[-1])
        return found


def _file() -> IO[str]:
    return tempfile.TemporaryFile("w+", encoding="utf-8")


def _content(file: IO[str]) -> str:
    file.seek(0)
    return file.read()


class Processes:
    """Starts children; each has an empty cache folder that holds nothing but the compiler's ISA probes.

    They are forked from a process that has imported PyTorch, unless they are to be fresh, or have variables that are
    read while it is imported.
    """

    def __init__(self, folder: Path, probes: Path | None, *, fresh: bool = False) -> None:
        self._folder = folder
        self._probes = probes
        self._fresh = fresh
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
            **forking.USUAL,
            "TORCHINDUCTOR_CACHE_DIR": str(folder or self.new_folder()),
            **(environment or {}),
        }
        given = {name: value for name, value in variables.items() if value is not None}
        stdout, stderr = _file(), _file()
        if not self._fresh and forking.server().can_start(given):
            return Running(forking.server().start(json.dumps(steps), given, stdout, stderr), stdout, stderr)
        command = [sys.executable, "-m", "tests.kit.child", json.dumps(steps)]
        popen = subprocess.Popen(
            command, cwd=REPOSITORY, env=given, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr
        )
        return Running(popen, stdout, stderr)

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


def run_code(code: str, *arguments: str, flags: Sequence[str] = ()) -> "subprocess.CompletedProcess[str]":
    """Run some code in a process of its own, by a Python with some options."""
    return subprocess.run(
        [sys.executable, *flags, "-c", code, *arguments],
        cwd=REPOSITORY,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=TIMEOUT,
        check=False,
    )
