"""Run moto behind a gate that logs requests, fails some of them, and ignores or refuses `If-None-Match`.

It serves S3, and KMS as far as signing with elliptic curves.
"""

import argparse
import json
import logging
import re
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote_plus

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import Prehashed
from cryptography.hazmat.primitives.hashes import SHA256
from moto.kms.utils import ECDSAPrivateKey
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple
from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

HANG_SECONDS = 120.0
CODES = {
    400: "InvalidArgument",
    403: "AccessDenied",
    409: "ConditionalRequestConflict",
    501: "NotImplemented",
    503: "SlowDown",
}
ERROR = """<?xml version="1.0" encoding="UTF-8"?>
<Error><Code>{code}</Code><Message>failed on demand</Message></Error>"""


class Gate:
    """Stand in front of a WSGI application."""

    def __init__(self, app: "WSGIApplication", workdir: Path, *, conditions: str) -> None:
        """Guard an application, with the log and the fault in a folder."""
        self._app = app
        self._log = (workdir / "requests.log").open("ab", buffering=0)
        self._fault = workdir / "fault.json"
        self._conditions = conditions
        self._spent: Counter[int] = Counter()
        self._counting = threading.Lock()
        self._creating = threading.Lock()

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        line = _line(environ)
        self._log.write(f"{line}\n".encode())
        mode = self._mode(line)
        if mode is not None:
            return _fail(mode, environ)(environ, start_response)
        if self._conditions == "ignored":
            environ.pop("HTTP_IF_NONE_MATCH", None)
        if "HTTP_IF_NONE_MATCH" not in environ:
            return self._app(environ, start_response)
        if self._conditions in {"400", "501"}:
            return _fail(self._conditions, environ)(environ, start_response)
        # moto looks first and writes later; S3 lets one of several racing writers win.
        with self._creating:
            return self._app(environ, start_response)

    def _mode(self, line: str) -> str | None:
        """Return how a request has to fail, or None."""
        try:
            fault = json.loads(self._fault.read_bytes())
        except FileNotFoundError:
            return None
        if not re.search(fault["match"], line):
            return None
        with self._counting:
            if self._spent[fault["serial"]] == fault["times"]:
                return None
            self._spent[fault["serial"]] += 1
        return str(fault["mode"])


def _line(environ: "WSGIEnvironment") -> str:
    """Return a request as `METHOD path?query`."""
    path = environ["PATH_INFO"].encode("latin-1").decode(errors="replace")
    query = unquote_plus(environ["QUERY_STRING"])
    return f"{environ['REQUEST_METHOD']} {path}" + (f"?{query}" if query else "")


def _fail(mode: str, environ: "WSGIEnvironment") -> Response:
    """Return an S3 error, or close the connection without an answer."""
    if mode == "hang":
        time.sleep(HANG_SECONDS)
    if mode in {"hang", "reset"}:
        # werkzeug would wait for another request on a connection that raised.
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
        raise ConnectionResetError
    status = int(mode)
    return Response(ERROR.format(code=CODES[status]), status, mimetype="application/xml")


def _sign(key: ECDSAPrivateKey, digest: bytes, algorithm: str) -> bytes:
    """Sign a digest, as clients ask KMS to: moto would take it for the message."""
    assert algorithm == "ECDSA_SHA_256"
    signature: bytes = key.private_key.sign(digest, ec.ECDSA(Prehashed(SHA256())))
    return signature


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("port", type=int)
    parser.add_argument("workdir", type=Path)
    parser.add_argument("conditions", help="what If-None-Match comes to: honoured, ignored, or a status")
    options = parser.parse_args()
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    ECDSAPrivateKey.sign = _sign  # type: ignore[assignment, method-assign]
    app = DomainDispatcherApplication(create_backend_app)
    gate = Gate(app, options.workdir, conditions=options.conditions)
    run_simple("127.0.0.1", options.port, gate, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main()
