"""Stand between a client and an object store on the loopback interface, fail requests on demand, and count them.

It is a real HTTP server: what a fault looks like to a client is what a broken network or store would send. S3 and GCS
answer errors in forms of their own; the path tells which of them is asked.
"""

import http.client
import json
import re
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import ClassVar
from urllib.parse import unquote, unquote_plus, urlsplit

from tests.kit.servers import HOST, Server
from tests.kit.servers.rules import Rules

_UPSTREAM_SECONDS = 30.0
_DRIPS = 20
_GCS_PATHS = ("/storage/", "/upload/", "/download/")
_HOP_BY_HOP = frozenset({"connection", "content-length", "date", "expect", "host", "server", "transfer-encoding"})
_NAME = re.compile(rb'"name":\s*"([^"]+)"')
_S3_CODES = {
    403: "AccessDenied",
    404: "NoSuchKey",
    409: "ConditionalRequestConflict",
    429: "TooManyRequests",
    500: "InternalError",
    501: "NotImplemented",
    503: "SlowDown",
    507: "InsufficientCapacity",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What a server sends for one request."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    length: int | None = None
    """What it claims to be the length of the body, if that is not the truth."""


class Exchange(BaseHTTPRequestHandler):
    """One connection of a client; an action decides what becomes of each request on it."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    rules: ClassVar[Rules]
    upstream: ClassVar[tuple[str, int]]
    earlier: ClassVar[dict[str, Answer]]

    def answer_request(self) -> None:
        """Read one request whole, and answer it as its rule says."""
        self._sent = self._body()
        self.line = _line(self.command, self.path, self._sent)
        action: Action = self.rules.take(self.line) or _pass
        with suppress(ConnectionError, TimeoutError):
            action(self)

    do_DELETE = do_GET = do_HEAD = do_POST = do_PUT = answer_request  # noqa: N815 - as `http.server` wants it

    def forward(self) -> Answer:
        """Ask the store behind the proxy."""
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _HOP_BY_HOP}
        connection = http.client.HTTPConnection(*self.upstream, timeout=_UPSTREAM_SECONDS)
        try:
            connection.request(self.command, self.path, self._sent, headers)
            told = connection.getresponse()
            kept = {name: value for name, value in told.getheaders() if name.lower() not in _HOP_BY_HOP}
            length = told.length if self.command == "HEAD" else None
            return Answer(status=told.status, headers=kept, body=told.read(), length=length)
        finally:
            connection.close()

    def send(self, answer: Answer, *, pause: float = 0.0) -> None:
        """Send an answer, in many pieces if there is a pause between them; one that lies of its length ends here."""
        length = len(answer.body) if answer.length is None else answer.length
        self.send_response_only(answer.status)
        for name, value in {"Date": formatdate(usegmt=True), **answer.headers, "Content-Length": str(length)}.items():
            self.send_header(name, value)
        self.end_headers()
        size = len(answer.body) // _DRIPS + 1 if pause else len(answer.body) + 1
        for start in range(0, len(answer.body), size):
            self.rules.healed(pause)
            self.wfile.write(answer.body[start : start + size])
        self.close_connection = self.close_connection or (length > len(answer.body) and self.command != "HEAD")

    def reset(self) -> None:
        """Drop the connection, so that the client is told by a RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def _body(self) -> bytes:
        if self.headers.get("Transfer-Encoding", "").lower() != "chunked":
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        pieces = []
        while size := int(self.rfile.readline().split(b";")[0], 16):
            pieces.append(self.rfile.read(size))
            self.rfile.readline()
        self.rfile.readline()
        return b"".join(pieces)


Action = Callable[[Exchange], None]


def delay(seconds: float) -> Action:
    """Answer rightly, later."""

    def act(exchange: Exchange) -> None:
        exchange.rules.healed(seconds)
        exchange.send(exchange.forward())

    return act


def hang(exchange: Exchange) -> None:
    """Never answer, as long as the rule is in force."""
    exchange.rules.healed()
    exchange.reset()


def reset(exchange: Exchange) -> None:
    """Drop the connection without asking the store."""
    exchange.reset()


def lose_answer(exchange: Exchange) -> None:
    """Do what was asked, and drop the connection without telling it."""
    exchange.forward()
    exchange.reset()


def status(number: int, code: str = "") -> Action:
    """Answer with an error in the form of the store, and in its words unless a code is given."""
    return lambda exchange: exchange.send(_error(exchange, number, code or _S3_CODES[number]))


def truncate(exchange: Exchange) -> None:
    """Claim the whole length, send half of it, and close."""
    answer = exchange.forward()
    exchange.send(replace(answer, body=answer.body[: len(answer.body) // 2], length=len(answer.body)))


def flip(exchange: Exchange) -> None:
    """Change one bit of the body."""
    answer = exchange.forward()
    body = bytearray(answer.body)
    body[len(body) // 2] ^= 0x10
    exchange.send(replace(answer, body=bytes(body), headers=_without_checksums(answer.headers)))


def substitute(body: bytes) -> Action:
    """Answer something else with a good status, as the login page of a network does."""
    headers = {"Content-Type": "text/html"}
    return lambda exchange: exchange.send(Answer(status=http.client.OK, headers=headers, body=body))


def drip(pause: float) -> Action:
    """Send the body in twenty pieces, each after a pause."""
    return lambda exchange: exchange.send(exchange.forward(), pause=pause)


def stale(exchange: Exchange) -> None:
    """Answer what was the answer to the same request when it was made for the first time."""
    exchange.send(exchange.earlier.get(exchange.line) or exchange.forward())


def skew(seconds: float) -> Action:
    """Answer rightly, by a clock that is wrong."""

    def act(exchange: Exchange) -> None:
        answer = exchange.forward()
        date = formatdate(time.time() + seconds, usegmt=True)
        exchange.send(replace(answer, headers={**answer.headers, "Date": date}))

    return act


@dataclass(frozen=True, slots=True, kw_only=True)
class Proxy:
    """A proxy that is running."""

    server: Server
    """The store, as it is reached through the proxy."""
    rules: Rules
    """What to do with which request, and what was asked."""


@contextmanager
def in_front_of(server: Server) -> Iterator[Proxy]:
    """Run a proxy for the length of a block."""
    rules = Rules()
    upstream = urlsplit(str(server.storage_options["endpoint_url"]))
    known = {"rules": rules, "upstream": (upstream.hostname, upstream.port), "earlier": {}}
    with ThreadingHTTPServer((HOST, 0), type("Bound", (Exchange,), known)) as listener:
        listener.daemon_threads, listener.block_on_close = True, False
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        options = {**server.storage_options, "endpoint_url": f"http://{HOST}:{listener.server_address[1]}"}
        try:
            yield Proxy(server=replace(server, storage_options=options), rules=rules)
        finally:
            rules.heal()
            listener.shutdown()


def _pass(exchange: Exchange) -> None:
    answer = exchange.forward()
    if exchange.command == "GET":
        exchange.earlier.setdefault(exchange.line, answer)
    exchange.send(answer)


def _line(method: str, target: str, body: bytes) -> str:
    """Write a request as `METHOD path?query`; GCS names what is uploaded in the body, which is put into the query."""
    path, _, query = target.partition("?")
    line = f"{method} {unquote(path)}" + (f"?{unquote_plus(query)}" if query else "")
    name = _NAME.search(body) if method == "POST" and path.startswith("/upload/") else None
    return f"{line}&name={name[1].decode()}" if name else line


def _error(exchange: Exchange, number: int, code: str) -> Answer:
    if exchange.path.startswith(_GCS_PATHS):
        document = {"error": {"code": number, "message": f"{code}: failed on demand", "errors": []}}
        return Answer(status=number, headers={"Content-Type": "application/json"}, body=json.dumps(document).encode())
    xml = f"<Error><Code>{code}</Code><Message>failed on demand</Message></Error>"
    return Answer(status=number, headers={"Content-Type": "application/xml"}, body=xml.encode())


def _without_checksums(headers: Mapping[str, str]) -> Mapping[str, str]:
    """Leave out the checksums by which a client would notice what only the reader of a cache may be left to notice."""
    return {name: value for name, value in headers.items() if "checksum" not in name.lower() and "hash" not in name}
