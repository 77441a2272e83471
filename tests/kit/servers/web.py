"""Serve a folder over HTTP as plain web servers do: with listings that tell no sizes, each in its own words."""

import html
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import ClassVar, Literal
from urllib.parse import unquote, urlsplit

from tests.kit.servers import HOST

Style = Literal["python", "nginx", "apache", "caddy", "unsized"]
HEADS: dict[Style, Sequence[str]] = {
    "python": (),
    "nginx": ("../",),
    "apache": ("?C=N;O=D", "?C=M;O=A", "/"),
    "caddy": ("../", "", "?sort=name&order=asc", "..", "https://caddyserver.com"),
    "unsized": (),
}
"""What the listings of these servers link to before the files, as seen at their releases of 2026."""
NO_HEADERS: Mapping[str, str] = {}


class WebHandler(BaseHTTPRequestHandler):
    """Answers GET and HEAD from a folder, and refuses the rest; `unsized` tells no length, as a gateway may not."""

    protocol_version = "HTTP/1.1"
    folder: ClassVar[Path]
    style: ClassVar[Style] = "python"
    lines: ClassVar[list[str]]

    def serve(self, path: str) -> None:
        """Answer with a listing, or with all of a file, whatever range is asked for."""
        found = self.folder / path.strip("/")
        if found.is_dir() and not path.endswith("/"):
            self.answer(b"", HTTPStatus.MOVED_PERMANENTLY, {"Location": f"{path}/"})
        elif found.is_dir():
            self.answer(self.listing(found).encode(), HTTPStatus.OK, {"Content-Type": "text/html; charset=utf-8"})
        elif found.is_file():
            self.answer(found.read_bytes())
        else:
            self.answer(b"not here", HTTPStatus.NOT_FOUND)

    def do_GET(self) -> None:
        """Take a request that reads."""
        self.lines.append(f"{self.command} {self.path}")
        self.serve(unquote(urlsplit(self.path).path))

    def do_HEAD(self) -> None:
        """Take a request for the head of an answer."""
        self.do_GET()

    def listing(self, folder: Path) -> str:
        """Write the page of a folder."""
        names = [f"{one.name}/" if one.is_dir() else one.name for one in sorted(folder.iterdir())]
        if self.style == "caddy":
            names = [f"./{name}" for name in names]
        links = [f'<a href="{html.escape(name)}">{html.escape(name)}</a>' for name in (*HEADS[self.style], *names)]
        return f"<html><body><pre>{'<br>'.join(links)}</pre></body></html>"

    def answer(self, body: bytes, status: int = HTTPStatus.OK, headers: Mapping[str, str] = NO_HEADERS) -> None:
        """Send an answer."""
        length = {"Connection": "close"} if self.style == "unsized" else {"Content-Length": str(len(body))}
        self.send_response(status)
        for name, value in {**headers, **length}.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@contextmanager
def listening(handler: type[BaseHTTPRequestHandler]) -> Iterator[str]:
    """Serve on a port of the loopback interface for the length of a block; give the URL."""
    with ThreadingHTTPServer((HOST, 0), handler) as listener:
        listener.daemon_threads, listener.block_on_close = True, False
        threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        try:
            yield f"http://{HOST}:{listener.server_address[1]}"
        finally:
            listener.shutdown()


@contextmanager
def serve(folder: Path, style: Style = "python") -> Iterator[tuple[str, list[str]]]:
    """Serve a folder in the way of a web server; give its URL, and the requests as they come."""
    lines: list[str] = []
    known = {"folder": folder, "style": style, "lines": lines}
    with listening(type("Bound", (WebHandler,), known)) as url:
        yield url, lines
