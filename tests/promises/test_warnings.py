"""A program may turn warnings into errors, or run in Python's development mode: no call raises for it."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.kit.processes import run_code
from tests.kit.servers import Server

CALLS = """
import json, sys, warnings
import megacache
with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what PyTorch warns of as it compiles is between it and the program
    from tests.kit import models
    models.doubling()
for url, options in json.loads(sys.argv[1]):
    for verb in (megacache.publish, megacache.warm, megacache.explain):
        result = verb(url, storage_options=options, timeout=20)
        print(verb.__name__, result.status, result.reason)
"""


@pytest.fixture
def refusing() -> Iterator[str]:
    """Serve HTTP, and refuse everything."""

    class Refusal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(401)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Be silent."""

    server = HTTPServer(("127.0.0.1", 0), Refusal)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/cache"
    server.shutdown()
    server.server_close()


@pytest.mark.parametrize(
    "flags", [("-W", "error"), pytest.param(("-X", "dev"), marks=pytest.mark.nightly)], ids=" ".join
)
def test_warning_is_no_exception(
    flags: tuple[str, ...], refusing: str, moto_s3: Server, gcs_server: Server, tmp_path: Path
) -> None:
    """Stores that work do so, and one that refuses is told of as ever, whatever becomes of warnings."""
    # In development mode aiohttp refuses the answers of moto, which names its server twice.
    servers = [gcs_server, *([moto_s3] if "error" in flags else [])]
    places = [[f"{server.url}/{tmp_path.name}", server.storage_options] for server in servers] + [
        [f"file://{tmp_path}", {}]
    ]
    done = run_code(CALLS, json.dumps([*places, [refusing, {}]]), flags=flags)
    assert done.returncode == 0, done.stderr[-2000:]
    lines = done.stdout.splitlines()
    works, refuses = ["published", "loaded", "environment"], ["unavailable"] * 3
    assert [line.split()[1] for line in lines] == [*works * len(places), *refuses], lines
    assert all("check the credentials" in line for line in lines[-3:]), lines
