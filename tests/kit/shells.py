"""Run command lines as a user types them, each with an empty cache folder."""

import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.kit.processes import Processes
from tests.kit.servers.fake_gcs import ENVIRONMENT as GCS_ENVIRONMENT

SECONDS = 240.0


def search_path(folder: Path) -> str:
    """Give the PATH on which `megacache` is the package that is tested, and `python` the one that tests it."""
    program = folder / "megacache"
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m megacache "$@"\n')
    program.chmod(0o755)
    return os.pathsep.join([str(folder), str(Path(sys.executable).parent), os.environ["PATH"]])


def ended(popen: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for a process; give its exit code and what it printed, stdout first."""
    stdout, stderr = popen.communicate(timeout=SECONDS)
    return popen.returncode, stdout + stderr


@dataclass(frozen=True, slots=True, kw_only=True)
class Shell:
    """Starts command lines in a folder."""

    processes: Processes
    """Gives each its cache folder."""
    path: str
    """`PATH`."""
    folder: Path
    """Where they start."""

    @contextmanager
    def start(self, command: str, **variables: str) -> Iterator["subprocess.Popen[str]"]:
        """Start a command, and end what is left of it and of its children."""
        popen = subprocess.Popen(
            ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", command],
            cwd=self.folder,
            env={**self._variables(), **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        try:
            yield popen
        finally:
            if popen.poll() is None:
                os.killpg(popen.pid, signal.SIGKILL)
                popen.communicate()

    def run(self, command: str, **variables: str) -> str:
        """Run a command that has to end well; give what it printed."""
        with self.start(command, **variables) as popen:
            code, printed = ended(popen)
        assert code == 0, f"exit code {code}\n{printed[-6000:]}"
        return printed

    def _variables(self) -> dict[str, str]:
        return {
            **os.environ,
            **GCS_ENVIRONMENT,
            "PATH": self.path,
            "TORCHINDUCTOR_CACHE_DIR": str(self.processes.new_folder()),
            "TORCHINDUCTOR_COMPILE_THREADS": "1",
            "GLOO_SOCKET_IFNAME": "lo",
            "HF_HUB_OFFLINE": "1",
        }
