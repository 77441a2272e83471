"""One run of the benchmark: its settings, its folders and stores, and the processes it starts."""

import json
import logging
import math
import os
import shutil
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from examples.benchmark import ptxas
from tests.kit.servers import Server
from tests.kit.servers.moto import MotoServer

_REPOSITORY = Path(__file__).parents[2]
_FOREIGN = (
    *("TORCH", "TRITON_", "MEGACACHE_", "AWS_", "FSSPEC_", "OMP_", "ATEN_", "PYTHON", "XDG_", "TMP", "TEMP"),
    *("BASETEN_", "B10FS_", "LOCAL_WORK_DIR", "MAX_CACHE_", "MAX_CONCURRENT_", "MIN_LOCAL_", "MIN_B10FS_", "FAL_"),
)
_TIMEOUT = 600.0
_TAIL = 4000
_log = logging.getLogger("benchmark")


class OutOfTimeError(Exception):
    """The time for the whole run is over."""


class ProcessFailedError(Exception):
    """A process ended with an error, or took too long by itself."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A prefix that nobody else uses."""

    kind: str
    """`disk` or `s3`."""
    url: str
    storage_options: Mapping[str, Any] = field(default_factory=dict)

    def options(self) -> dict[str, Any]:
        """Give what a task takes to find it."""
        return {"url": self.url, "storage_options": self.storage_options}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """The settings of a run, and what all its sections share."""

    rounds: int
    quick: bool
    folder: Path
    """For all that is written, removed at the end."""
    moto: MotoServer | None = None
    """None where nothing uses S3, or it cannot be served."""
    redis_url: str = ""
    """Of a running server; empty if there is none."""
    models: tuple[str, ...] = ()
    variants: tuple[str, ...] = ()
    device: str = "cpu"
    """Where the models run."""
    deadline: float = math.inf
    """By `time.monotonic()`; no process outlives it."""
    variables: Mapping[str, str] = field(default_factory=dict)
    """Of the environment of every process."""

    @property
    def kinds(self) -> tuple[str, ...]:
        """Name the kinds of stores there are."""
        return ("disk", "s3") if self.moto else ("disk",)

    @property
    def tmp(self) -> Path:
        """Name the temporary folder of every process.

        It has the same path each time, as in containers of one image, and is empty when a process starts.
        """
        return self.folder / "container" / "tmp"

    @contextmanager
    def place(self, kind: str) -> Iterator[Place]:
        """Make an empty store, and remove it with all that is in it."""
        name = uuid.uuid4().hex[:12]
        if kind == "disk":
            with self.scratch() as folder:
                yield Place(kind=kind, url=folder.as_uri())
            return
        if self.moto is None:
            raise ValueError("this run has no S3 server")
        server = self.moto.server
        try:
            yield Place(kind=kind, url=f"{server.url}/{name}", storage_options=server.storage_options)
        finally:
            _remove(server, name)

    @contextmanager
    def scratch(self) -> Iterator[Path]:
        """Make an empty folder, and remove it."""
        folder = self.folder / uuid.uuid4().hex[:12]
        folder.mkdir()
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def run(
        self, task: str, options: Mapping[str, Any], *, variables: Mapping[str, str] | None = None
    ) -> dict[str, Any]:
        """Do a task in a fresh process, like one in a fresh container; raise if it fails or takes too long."""
        limit = self._limit()
        with self._container() as container:
            argv = [sys.executable, "-m", "examples.benchmark.child", task, json.dumps(options)]
            environment = {
                **_inherited(),
                "HOME": str(container / "home"),
                "TMPDIR": str(self.tmp),
                ptxas.RUNS: str(container / "ptxas.log"),
                **self.variables,
                **(variables or {}),
            }
            started = time.time()
            with (container / "stdout").open("wb") as stdout, (container / "stderr").open("wb") as stderr:
                process = subprocess.Popen(
                    argv, stdout=stdout, stderr=stderr, cwd=_REPOSITORY, env=environment, start_new_session=True
                )
            try:
                status = process.wait(limit)
            except subprocess.TimeoutExpired:
                if limit < _TIMEOUT:
                    raise OutOfTimeError from None
                raise ProcessFailedError(f"{task} took more than {limit:g} s") from None
            finally:
                _end_group(process)
            if status:
                errors = (container / "stderr").read_text(errors="replace").strip()
                _log.warning("%s ended with %d:\n%s", task, status, errors[-_TAIL:])
                raise ProcessFailedError(f"{task} ended with {status}: {errors.rpartition(chr(10))[2]}")
            answer: dict[str, Any] = json.loads((container / "stdout").read_text().splitlines()[-1])
            return {"started": started, "load_average": os.getloadavg()[0], **answer}

    def _limit(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise OutOfTimeError
        return min(_TIMEOUT, left)

    @contextmanager
    def _container(self) -> Iterator[Path]:
        """Make the folder of one process, with an empty home and an empty temporary folder, and remove it."""
        container = self.tmp.parent
        for folder in (self.tmp, container / "home"):
            folder.mkdir(parents=True)
        try:
            yield container
        finally:
            shutil.rmtree(container)


def _remove(server: Server, name: str) -> None:
    import fsspec

    fs = fsspec.filesystem("s3", skip_instance_cache=True, use_listings_cache=False, **server.storage_options)
    path = f"{server.url.removeprefix('s3://')}/{name}"
    with suppress(FileNotFoundError):
        fs.rm(path, recursive=True)


def _inherited() -> dict[str, str]:
    """Leave out what would configure a child behind the benchmark's back, but not what finds its packages."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(_FOREIGN)}
    if "PYTHONPATH" in os.environ:
        # A child starts in another folder: what is relative means the folder that this process was started in.
        kept["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, os.environ["PYTHONPATH"].split(os.pathsep)))
    return kept


def _end_group(process: "subprocess.Popen[bytes]") -> None:
    """End what a process left behind, such as torch's compile workers, before anything else is measured."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
