"""Ask a process that has imported PyTorch for children, which take a fraction of the time of fresh ones."""

import atexit
import functools
import json
import os
import re
import select
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO

from tests.kit.servers.fake_gcs import ENVIRONMENT as GCS_ENVIRONMENT

_REPOSITORY = Path(__file__).parents[2]
USUAL = {**GCS_ENVIRONMENT, "TORCHINDUCTOR_COMPILE_THREADS": "1"}
"""Variables of every child."""
_LATE = re.compile(
    r"TORCHINDUCTOR_CACHE_DIR|MEGACACHE_\w+|AWS_\w+|VLLM_CACHE_ROOT|TORCH_EXTENSIONS_DIR|XDG_CACHE_HOME|PATH|PYTEST_CURRENT_TEST",
    re.ASCII,
)
"""Variables that are read when they are needed; others may be read as Python, PyTorch or a client is imported."""


class Forked:
    """A child that the server has forked; it answers as `subprocess.Popen` does."""

    def __init__(self, told: socket.socket) -> None:
        self._told = told
        self._pid = self._number()
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Give its exit status if it has ended; a negative one is the signal that it died of."""
        return self._ended(0)

    def wait(self, timeout: float) -> int:
        """Wait for its end."""
        status = self._ended(timeout)
        if status is None:
            raise subprocess.TimeoutExpired(str(self._pid), timeout)
        return status

    def kill(self) -> None:
        """Kill it, if it has not ended."""
        if self.poll() is None:
            os.kill(self._pid, signal.SIGKILL)

    def _ended(self, seconds: float) -> int | None:
        if self.returncode is None and select.select([self._told], [], [], seconds)[0]:
            self.returncode = self._number()
            self._told.close()
        return self.returncode

    def _number(self) -> int:
        data = self._told.recv(64)
        assert data, "the process that forks has ended"
        return int(data)


class Server:
    """The process that forks, from its first use to the end of this one."""

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._environment = environment
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._folder = tempfile.TemporaryDirectory(prefix="forkserver-")
        self._popen = subprocess.Popen(
            [sys.executable, "-m", "tests.kit.forkserver", str(theirs.fileno())],
            cwd=_REPOSITORY,
            env={**environment, "TORCHINDUCTOR_CACHE_DIR": self._folder.name},
            pass_fds=[theirs.fileno()],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
        )
        theirs.close()
        atexit.register(self._close)

    def can_start(self, environment: Mapping[str, str]) -> bool:
        """Tell whether a child with these variables is what a fresh process would be."""
        names = environment.keys() | self._environment.keys()
        return all(_LATE.fullmatch(name) for name in names if environment.get(name) != self._environment.get(name))

    def start(self, steps: str, environment: Mapping[str, str], stdout: IO[str], stderr: IO[str]) -> Forked:
        """Start a child."""
        mine, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        request = json.dumps({"steps": steps, "environment": dict(environment)}).encode()
        with theirs:
            socket.send_fds(self._control, [request], [stdout.fileno(), stderr.fileno(), theirs.fileno()])
        return Forked(mine)

    def _close(self) -> None:
        self._control.close()
        self._popen.wait()
        self._folder.cleanup()


@functools.cache
def server() -> Server:
    """Start the server when it is first asked for, with the variables that most children have."""
    return Server({**os.environ, **USUAL})
