"""Serve S3 by moto, with a request log and faults on demand."""

import itertools
import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Literal

from tests.kit.servers import BUCKET, HOST, Server, accepts, free_port, running, send, wait_until

Mode = Literal["400", "403", "409", "503", "hang", "reset"]
"""How a request fails: by an S3 error, by no answer at all, or by a closed connection."""

Conditions = Literal["honoured", "ignored", "400", "501"]
"""What becomes of `If-None-Match`: the last two are the answers of servers that do not know it."""

_REPOSITORY = Path(__file__).parents[3]
_START_SECONDS = 30.0


class MotoServer:
    """Watch and break one running moto server, through files that it reads and writes."""

    def __init__(self, server: Server, workdir: Path) -> None:
        """Adopt the server that keeps its files in a folder."""
        self.server = server
        self._log = workdir / "requests.log"
        self._fault = workdir / "fault.json"
        self._forgotten = 0
        self._serials = itertools.count()

    def requests(self) -> list[str]:
        """Return `METHOD /bucket/key?query`, percent-decoded, of each request since the last `forget`."""
        return self._lines()[self._forgotten :]

    def forget(self) -> None:
        """Let `requests` start anew."""
        self._forgotten = len(self._lines())

    def fault(self, match: str, mode: Mode, times: int | None = None) -> None:
        """Fail the next `times` requests (all, if None) whose line has a match of a regular expression."""
        fault = {"serial": next(self._serials), "match": match, "mode": mode, "times": times}
        fresh = self._fault.with_suffix(".new")
        fresh.write_text(json.dumps(fault))
        fresh.replace(self._fault)

    def heal(self) -> None:
        """Answer requests properly from now on."""
        self._fault.unlink(missing_ok=True)

    def _lines(self) -> list[str]:
        return self._log.read_text().splitlines()


@contextmanager
def serve(workdir: Path, *, conditions: Conditions = "honoured") -> Iterator[MotoServer]:
    """Run moto with one bucket, keeping its files in an empty folder."""
    port = free_port()
    argv = [sys.executable, "-m", "tests.kit.servers.moto_app", str(port), str(workdir), conditions]
    with running(argv, log=workdir / "moto.log", cwd=_REPOSITORY) as child:
        wait_until(lambda: accepts(port), _START_SECONDS, "moto", child=child)
        send(port, "PUT", f"/{BUCKET}")
        moto = MotoServer(_describe(port, conditions), workdir)
        moto.forget()
        yield moto


def _describe(port: int, conditions: Conditions) -> Server:
    """Describe the moto server that listens on a port."""
    return Server(
        name=f"moto, conditions {conditions}",
        url=f"s3://{BUCKET}",
        storage_options={
            "key": "megacache",
            "secret": "megacache-loopback",
            "endpoint_url": f"http://{HOST}:{port}",
        },
        creates_if_absent=conditions == "honoured",
        checks_credentials=False,
    )
