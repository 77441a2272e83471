"""Start object stores on the loopback interface, each as a child process that ends with its block."""

import http.client
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

HOST = "127.0.0.1"
BUCKET = "megacache-test"

_TAIL_LINES = 20
_GRACE_SECONDS = 1.0
_REQUEST_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """Describe a running object store as a test reaches it."""

    name: str
    """The product, such as `moto`."""
    url: str
    """The URL of an existing, empty bucket, such as `s3://megacache-test`."""
    storage_options: dict[str, object]
    """What fsspec needs to reach it: the endpoint and the credentials."""
    creates_if_absent: bool
    """True if it honours `If-None-Match: *` or `ifGenerationMatch=0` on a simple upload."""
    checks_credentials: bool
    """True if it refuses a wrong secret."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Child:
    """Pair a child process with what it has written."""

    popen: subprocess.Popen[bytes]
    """The process."""
    log: Path
    """The file that takes its stdout and stderr."""

    def tail(self) -> str:
        """Return the last lines that the process wrote."""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-_TAIL_LINES:])


@contextmanager
def running(argv: Sequence[str | Path], *, log: Path, cwd: Path | None = None) -> Iterator[Child]:
    """Keep a child process alive for the length of a block."""
    with log.open("wb") as output:
        popen = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT, cwd=cwd)
    try:
        yield Child(popen=popen, log=log)
    finally:
        _stop(popen)


def free_port() -> int:
    """Return a loopback port that nothing listens on at the moment."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        port: int = probe.getsockname()[1]
        return port


def accepts(port: int) -> bool:
    """Return True if something listens on a loopback port."""
    with suppress(OSError), socket.create_connection((HOST, port), timeout=1):
        return True
    return False


def wait_until(condition: Callable[[], bool], seconds: float, what: str, *, child: Child) -> None:
    """Poll a condition, or raise with the child's last words once it has ended or the time is up."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return
        if child.popen.poll() is not None:
            raise RuntimeError(f"{what}: the process ended with {child.popen.returncode}\n{child.tail()}")
        time.sleep(0.02)
    raise TimeoutError(f"{what}: not within {seconds:g} s\n{child.tail()}")


def send(
    port: int, method: str, path: str, *, body: str | None = None, headers: Mapping[str, str] | None = None
) -> None:
    """Make one plain HTTP request that has to succeed."""
    connection = http.client.HTTPConnection(HOST, port, timeout=_REQUEST_SECONDS)
    try:
        connection.request(method, path, body, dict(headers or {}))
        answer = connection.getresponse()
        text = answer.read().decode(errors="replace")
    finally:
        connection.close()
    if answer.status != http.client.OK:
        raise RuntimeError(f"{method} {path}: answered {answer.status}\n{text}")


def _stop(popen: subprocess.Popen[bytes]) -> None:
    """End a process, by force if it does not go when asked."""
    popen.terminate()
    try:
        popen.wait(_GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        popen.kill()
        popen.wait(_REQUEST_SECONDS)
