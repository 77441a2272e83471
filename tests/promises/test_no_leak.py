"""No part of a credential leaves a call: real clients that fail, with a secret in each place that can hold one."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.kit.processes import run_code

SECRET = "s3cr3t/of+mine=="
QUOTED = "s3cr3t%2Fof%2Bmine%3D%3D"
PARTS = ("s3cr3t", "of+mine", "of%2Bmine")

CALLS = """
import json, logging, sys, traceback
import megacache

logging.basicConfig(level=logging.ERROR)
logging.getLogger("megacache").setLevel(logging.DEBUG)
for url, options in json.loads(sys.argv[1]):
    for verb in ("warm", "explain"):
        result = getattr(megacache.Cache(url, storage_options=options), verb)(timeout=10)
        print(result.status, result.reason, result, repr(result))
        if verb == "explain":
            print(json.dumps(result.to_json()))
        try:
            getattr(megacache.Cache(url, storage_options=options, strict=True), verb)(timeout=10)
        except megacache.MegacacheError as error:
            traceback.print_exc()
            while error is not None:
                print(repr(error), vars(error), error.__context__)
                error = error.__cause__
"""
COMMAND = """
import sys
from megacache._cli import main
sys.argv[0] = "megacache"
main()
"""


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    """Serve HTTP, and answer everything with the headers of the question."""

    class Echo(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            words = f"you said {self.path} {self.headers}".encode()
            self.send_response(400)
            self.send_header("Content-Length", str(len(words)))
            self.end_headers()
            self.wfile.write(words)

        def log_message(self, *_: object) -> None:
            """Be silent."""

    server = HTTPServer(("127.0.0.1", 0), Echo)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield server.server_port
    server.shutdown()
    server.server_close()


def cases(port: int) -> dict[str, tuple[str, dict[str, Any]]]:
    """Give URLs and options that hold the secret, and lead to a failure."""
    s3 = {"key": "me", "secret": SECRET, "endpoint_url": f"http://127.0.0.1:{port}"}
    return {
        "password": (f"s3://KEY:{QUOTED}@bucket/x", {}),
        "password with a slash": (f"s3://KEY:{SECRET}@bucket/x", {}),
        "password without a protocol": (f"KEY:{SECRET}@bucket/x", {}),
        "secret": ("s3://bucket/x", s3),
        "session": ("s3://bucket/x", s3 | {"secret": "x", "token": SECRET}),
        "secret of a client": ("s3://bucket/x", {"client_kwargs": {"aws_access_key_id": SECRET}}),
        "secret of no option": ("s3://bucket/x", s3 | {"config_kwargs": {"secret": SECRET}}),
        "endpoint": ("s3://bucket/x", s3 | {"endpoint_url": f"http://me:{QUOTED}@127.0.0.1:{port}"}),
        "endpoint without a protocol": ("s3://bucket/x", s3 | {"endpoint_url": f"me:{SECRET}@127.0.0.1:{port}"}),
        "proxy": ("s3://bucket/x", s3 | {"config_kwargs": {"proxies": {"http": f"http://me:{QUOTED}@127.0.0.1:1"}}}),
        "http": (f"http://me:{QUOTED}@127.0.0.1:{port}/x", {}),
        "query": (f"http://127.0.0.1:{port}/x?sig={QUOTED}", {}),
        "header": (
            f"http://127.0.0.1:{port}/x",
            {"client_kwargs": {"headers": {"Authorization": f"Bearer {SECRET}"}}},
        ),
        "chain": (f"simplecache::http://me:{QUOTED}@127.0.0.1:{port}/x", {"http": {"headers": {"Token": SECRET}}}),
        "ftp": (f"ftp://me:{QUOTED}@127.0.0.1:1/x", {}),
        "gs": ("gs://bucket/x", {"token": {"type": "authorized_user", "client_secret": SECRET}}),
        "unknown": (f"carrier-pigeon://me:{SECRET}@coop/x", {}),
    }


def check_silence(told: str) -> None:
    """Check that none of what was told is a part of the secret."""
    lines = [line for line in told.splitlines() if any(part in line for part in PARTS)]
    assert not lines, lines


def test_no_call_leaks(port: int) -> None:
    """Results, their text and JSON, the log, exceptions with their causes, and tracebacks hold no part of it."""
    given = cases(port)
    done = run_code(CALLS, json.dumps(list(given.values())))
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.count("unavailable ") == 2 * done.stdout.count('"status": "unavailable"')
    assert done.stdout.count('"status": "unavailable"') >= len(given) - 1, done.stdout
    assert done.stderr.count("The above exception was the direct cause") >= len(given) - 2
    check_silence(done.stdout + done.stderr)


@pytest.mark.parametrize(
    "words",
    [
        ["ls", "URL"],
        ["ls", "URL", "too", "URL"],
        ["verify", "URL"],
        ["report", "URL"],
        ["report", "URL", "-o", "URL"],
        ["export", "URL", "URL"],
        ["cp", "URL", "URL/other"],
        ["rm", "URL", "--everything", "URL"],
        ["run", "--url", "URL"],
        ["URL"],
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("case", ["password with a slash", "http", "password without a protocol"])
def test_no_command_leaks(case: str, words: list[str], port: int) -> None:
    """A command that fails, or was given what it did not expect, repeats no part of it."""
    url, _ = cases(port)[case]
    done = run_code(COMMAND, *(word.replace("URL", url) for word in words))
    assert done.stdout + done.stderr
    check_silence(done.stdout + done.stderr)
