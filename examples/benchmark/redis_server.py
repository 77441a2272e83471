"""A redis server on the loopback interface, which ends with its block and keeps nothing."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.kit.servers import HOST, accepts, free_port, running, wait_until

_START_SECONDS = 30.0


@contextmanager
def serve(workdir: Path) -> Iterator[str]:
    """Run it, and give its URL."""
    port = free_port()
    workdir.mkdir()
    argv = ["redis-server", "--bind", HOST, "--port", str(port), "--save", "", "--appendonly", "no"]
    with running([*argv, "--dir", str(workdir)], log=workdir / "redis.log") as child:
        wait_until(lambda: accepts(port), _START_SECONDS, "redis-server", child=child)
        yield f"redis://{HOST}:{port}/0"
