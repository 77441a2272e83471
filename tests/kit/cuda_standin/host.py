"""Hosts with the GPU that is not there: each start is a process of its own, with empty folders at a path of its own."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.kit.cuda_standin import tools
from tests.kit.cuda_standin.building import RUNTIME

REPOSITORY = Path(__file__).parents[3]
SECONDS_OF_WORK = 240.0
SECONDS_TO_END = 60.0
"""Time that a process has from its report to its end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What one process did."""

    status: int | None
    """Its exit status; None if it did not end in time and was killed."""
    told: Mapping[str, Any]
    """The report of `process`; empty if there is none."""
    commands: Sequence[str]
    """Runs of ptxas and of C compilers that made something, of this process and of its children."""
    events: Sequence[Mapping[str, Any]]
    """What the stand-in wrote down: modules, launches, times that were taken, …"""
    strays: Sequence[str]
    """Files that it left outside of its own folders, which are those of processes before it."""
    stderr: str
    """Its last words."""

    def runs(self, *names: str) -> list[str]:
        """Give the runs of some tools."""
        return [command for command in self.commands if command.partition(" ")[0] in names]

    @property
    def kernels(self) -> Sequence[str]:
        """The kernels that were compiled: runs of ptxas."""
        return self.runs(*tools.PTXAS)

    @property
    def builds(self) -> Sequence[str]:
        """What a C compiler made."""
        return self.runs(*tools.C_COMPILERS)

    @property
    def trials(self) -> int:
        """Times that were taken of kernels: nothing but autotuning takes any."""
        return sum(event["event"] == "elapsed" for event in self.events)

    @property
    def launched(self) -> Counter[str]:
        """Launches of Triton's kernels, by name."""
        return Counter(event["name"] for event in self.events if event["event"] == "launch")


class Hosts:
    """Starts processes one after another, each as on a host where no other one has been."""

    def __init__(self, standin: Path, folder: Path) -> None:
        self._standin = standin
        self._folder = folder
        self._hosts = folder / "hosts"
        self._hosts.mkdir(parents=True)
        self._done = folder / "done"
        self._done.mkdir()
        self._ptxas = tools.counted_ptxas(folder / "ptxas")
        self._compilers = {True: tools.counted(folder / "tools"), False: tools.broken(folder / "no-tools")}
        self.store = folder / "store"
        self._started = 0

    def start(
        self,
        program: str,
        *,
        compilers: bool = True,
        cache_folder: bool = True,
        environment: Mapping[str, str] | None = None,
    ) -> Start:
        """Run one of `programs` between a warm start and two publications.

        Without `compilers`, each C compiler fails. Without `cache_folder`, PyTorch takes its default below TMPDIR.
        """
        self._started += 1
        place = self._hosts / f"host-{self._started}"
        variables = {**self._variables(place, compilers=compilers, cache_folder=cache_folder), **(environment or {})}
        arguments = [program, str(self.store), str(place / "report")]
        with (place / "stdout").open("wb") as out, (place / "stderr").open("wb") as err:
            child = subprocess.Popen(
                [sys.executable, "-m", "tests.kit.cuda_standin.process", *arguments],
                cwd=REPOSITORY,
                env=variables,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                start_new_session=True,
            )
            status = _ended(child, place / "report")
        strays = tuple(str(path.relative_to(self._hosts)) for path in _files(self._hosts) if place not in path.parents)
        return self._report(place.rename(self._done / place.name), status, strays)

    def _variables(self, place: Path, *, compilers: bool, cache_folder: bool) -> dict[str, str]:
        folders = {"HOME": place / "home", "TMPDIR": place / "tmp"}
        if cache_folder:
            folders["TORCHINDUCTOR_CACHE_DIR"] = place / "inductor"
        for folder in folders.values():
            folder.mkdir(parents=True)
        return {
            **{name: str(folder) for name, folder in folders.items()},
            **self._ptxas,
            "PATH": tools.search_path(self._compilers[compilers]),
            "PYTHONPATH": os.environ.get("PYTHONPATH", ""),
            "PYTHONDONTWRITEBYTECODE": "1",
            "LANG": "C.UTF-8",
            # torch finds the runtime of its wheels before all others; the driver is looked for in LD_LIBRARY_PATH.
            "LD_PRELOAD": str(self._standin / RUNTIME),
            "LD_LIBRARY_PATH": str(self._standin),
            "CUDA_STANDIN_LOG": str(place / "events"),
            "CUDA_STANDIN_SEED": str(self._started),  # who tunes again decides otherwise
            tools.LOG: str(place / "commands"),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
        }

    def _report(self, place: Path, status: int | None, strays: tuple[str, ...]) -> Start:
        report, events = place / "report", place / "events"
        return Start(
            status=status,
            told=json.loads(report.read_text()) if report.exists() else {},
            commands=tools.made(place / "commands"),
            events=[json.loads(line) for line in events.read_text().splitlines()] if events.exists() else [],
            strays=strays,
            stderr=(place / "stderr").read_text(errors="replace")[-4000:],
        )


def _ended(child: "subprocess.Popen[bytes]", report: Path) -> int | None:
    """Wait for the report, then for the end, and leave nothing behind that still runs."""
    latest = time.monotonic() + SECONDS_OF_WORK
    while child.poll() is None and not report.exists() and time.monotonic() < latest:
        time.sleep(0.05)
    try:
        return child.wait(SECONDS_TO_END)
    except subprocess.TimeoutExpired:
        return None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        child.wait()


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file())
