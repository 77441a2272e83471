"""Fork the workers of a scenario, so many at once, and kill some.

`python -m examples.fleet.crew PLAN` reads a plan that `run` has written. This process has imported PyTorch, megacache
and the client of S3 once; workers share these modules, and nothing that came after.
"""

import json
import os
import pickle
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples.fleet.recording import Compilation, read
from examples.fleet.worker import Job, end, prepare, work
from tests.kit.processes import REPOSITORY

_POLL = 0.02
_CREWS, _LARGEST = 4, 50
"""Processes that fork at most, and the workers of one before there is another."""
_LONGEST = 300.0
"""Seconds after which a worker is taken for stuck, and killed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fate:
    """A worker, and what becomes of it."""

    job: Job
    after: float
    """Seconds from the beginning of the scenario to its start; it is later if too many are at work."""
    killed_after: float | None = None
    """Seconds of its life, after which it is killed."""
    killed_at_work: bool = False
    """True if it is killed once it compiles."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Account:
    """What is known of a worker in the end."""

    number: int
    started: float
    """Seconds from the beginning of the scenario."""
    status: int
    """How its process ended."""
    compiling: Sequence[str]
    """Graphs that it has begun to compile."""
    told: Mapping[str, Any]
    """Its own account; empty if it was killed."""


def run(fates: Sequence[Fate], recording: Path, folder: Path, *, at_once: int, seconds: float) -> Sequence[Account]:
    """Run workers in processes from which they are forked, and give an account of each."""
    # One that forks all workers would be busy with that alone.
    count = min(_CREWS, -(-len(fates) // _LARGEST))
    crews = [
        _started(fates[number::count], recording, folder / f"crew-{number}", at_once // count or 1)
        for number in range(count)
    ]
    try:
        for popen, _ in crews:
            if popen.wait(seconds):
                raise RuntimeError(f"a crew ended with {popen.returncode}")
        return [Account(**one) for _, answer in crews for one in json.loads(answer.read_text())]
    finally:
        for popen, _ in crews:
            with suppress(ProcessLookupError):  # its workers go with it
                os.killpg(popen.pid, signal.SIGKILL)
            popen.wait()


def _started(
    fates: Sequence[Fate], recording: Path, folder: Path, at_once: int
) -> "tuple[subprocess.Popen[bytes], Path]":
    """Start a crew; give the file with its accounts as well."""
    folder.mkdir(exist_ok=True)
    plan, answer = folder / "plan.pickle", folder / "accounts.json"
    plan.write_bytes(pickle.dumps((tuple(fates), str(recording), at_once, str(answer))))
    command = [sys.executable, "-m", "examples.fleet.crew", str(plan)]
    variables = {**os.environ, "TORCHINDUCTOR_COMPILE_THREADS": "1", "OMP_NUM_THREADS": "1", "MEGACACHE_LOG": ""}
    return subprocess.Popen(command, cwd=REPOSITORY, env=variables, start_new_session=True), answer


class _Crew:
    def __init__(self, fates: Sequence[Fate], recorded: Mapping[str, Compilation], at_once: int) -> None:
        self._waiting = sorted(fates, key=lambda fate: -fate.after)
        self._recorded = recorded
        self._at_once = at_once
        self._alive: dict[int, tuple[Fate, float]] = {}
        self._begun = time.monotonic()
        self.accounts: list[Account] = []

    def step(self) -> Job | None:
        """Start, kill and bury whoever is due; give a job in the child that is to do it."""
        now = time.monotonic()
        while self._waiting and len(self._alive) < self._at_once and now - self._begun >= self._waiting[-1].after:
            fate = self._waiting.pop()
            Path(fate.job.folder).mkdir(parents=True)
            child = os.fork()
            if not child:
                return fate.job
            self._alive[child] = fate, time.monotonic()
        for child, (fate, started) in list(self._alive.items()):
            caught = fate.killed_at_work and _note(fate.job).exists()
            if caught or now - started >= min(fate.killed_after or _LONGEST, _LONGEST):
                os.kill(child, signal.SIGKILL)
            ended, status = os.waitpid(child, os.WNOHANG)
            if ended:
                del self._alive[child]
                self._bury(fate, started, os.waitstatus_to_exitcode(status))
        return None

    def goes_on(self) -> bool:
        return bool(self._waiting or self._alive)

    def _bury(self, fate: Fate, started: float, status: int) -> None:
        folder = Path(fate.job.folder)
        note, account = _note(fate.job), folder / "account.json"
        self.accounts.append(
            Account(
                number=fate.job.number,
                started=started - self._begun,
                status=status,
                compiling=note.read_text().split() if note.exists() else [],
                told=json.loads(account.read_text()) if account.exists() else {},
            )
        )
        shutil.rmtree(folder, ignore_errors=True)


def _note(job: Job) -> Path:
    return Path(job.folder, "compiling")


def main() -> None:
    """Run a plan; in a child, be a worker to the end of its interpreter."""
    fates, recording, at_once, answer = pickle.loads(Path(sys.argv[1]).read_bytes())
    recorded = {one.model: one for one in read(Path(recording))}
    prepare()
    assert threading.active_count() == 1, "a fork would lose a thread"
    crew = _Crew(fates, recorded, at_once)
    while crew.goes_on():
        job = crew.step()
        if job is not None:
            random.seed()
            work(job, recorded)
            end()
        time.sleep(_POLL)
    Path(answer).write_text(json.dumps([asdict(one) for one in crew.accounts]))


if __name__ == "__main__":
    main()
