"""Serve S3 by moto, note who asked for what, and throttle.

`python -m examples.fleet.server PORT LOG`: each request is a line of JSON. Workers name themselves in their user agent,
as `fleet/<scenario>/<node>/<worker>/<step>`.
"""

import json
import logging
import random
import re
import sys
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs

from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from werkzeug.serving import run_simple

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CONTROL = "/fleet-control"
_LATENCY = 0.05
"""Seconds before an answer begins, as with S3."""
_WHO = re.compile(r"fleet/(?P<scenario>[\w-]+)/(?P<node>\d+)/(?P<worker>\d+)/(?P<step>\w+)")
_SLOW_DOWN = b"<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"


class Gate:
    """Stands in front of moto."""

    def __init__(self, app: "WSGIApplication", log: Path) -> None:
        """Note requests in a file."""
        self._app = app
        self._log = log.open("ab", buffering=0)
        self._creating = threading.Lock()
        self._throttled = 0.0

    def __call__(self, environ: "WSGIEnvironment", start_response: "StartResponse") -> Iterable[bytes]:
        """Answer one request."""
        if environ["PATH_INFO"] == CONTROL:
            self._throttled = float(parse_qs(environ["QUERY_STRING"])["share"][0])
            start_response("200 OK", [("Content-Length", "0")])
            return [b""]
        time.sleep(_LATENCY)
        if random.random() < self._throttled:
            start_response("503 Slow Down", [("Content-Type", "application/xml"), ("Retry-After", "1")])
            self._note(environ, 503, len(_SLOW_DOWN))
            return [_SLOW_DOWN]
        told: list[str] = []

        def started(status: str, *rest: Any) -> Any:
            told.append(status)
            return start_response(status, *rest)

        if "HTTP_IF_NONE_MATCH" in environ:
            # moto looks first and writes later; S3 lets one of several racing writers win.
            with self._creating:
                body = b"".join(self._app(environ, started))
        else:
            body = b"".join(self._app(environ, started))
        self._note(environ, int(told[-1].partition(" ")[0]), len(body))
        return [body]

    def _note(self, environ: "WSGIEnvironment", status: int, size: int) -> None:
        who = _WHO.search(environ.get("HTTP_USER_AGENT", ""))
        method = "LIST" if "list-type" in environ["QUERY_STRING"] else environ["REQUEST_METHOD"]
        line = {
            **(who.groupdict() if who else {}),
            "method": method,
            "key": environ["PATH_INFO"],
            "status": status,
            "in": int(environ.get("CONTENT_LENGTH") or 0),
            "out": size if environ["REQUEST_METHOD"] != "HEAD" else 0,
        }
        self._log.write(f"{json.dumps(line)}\n".encode())


def main() -> None:
    """Serve until the process is ended."""
    port, log = sys.argv[1:]
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    gate = Gate(DomainDispatcherApplication(create_backend_app), Path(log))
    run_simple("127.0.0.1", int(port), gate, threaded=True, request_handler=MotoRequestHandler)


if __name__ == "__main__":
    main()
