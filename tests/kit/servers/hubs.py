"""Stand in for GitHub and for the Hugging Face Hub as far as their filesystems ask to list and to read."""

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

from tests.kit.servers.web import WebHandler, listening

REPOSITORY = "org/caches"
COMMIT = "0" * 40


class _Hub(WebHandler):
    """Answers in JSON."""

    def say(self, document: Any) -> None:
        """Send a document."""
        self.answer(json.dumps(document).encode(), headers={"Content-Type": "application/json"})

    def refuse(self, status: int, code: str) -> None:
        """Send an error, of which the Hub's client reads the code."""
        body = json.dumps({"error": code, "message": code}).encode()
        self.answer(body, status, {"Content-Type": "application/json", "X-Error-Code": code})


class HuggingFaceHandler(_Hub):
    """Knows one data set, and answers as the Hub does: https://huggingface.co/docs/hub/api."""

    def serve(self, path: str) -> None:
        """Describe the data set, list a folder of it, or send a range of a file."""
        api = f"/api/datasets/{REPOSITORY}"
        if path == api:
            self.say({"id": REPOSITORY, "sha": COMMIT, "siblings": [], "tags": []})
        elif path.startswith(f"{api}/tree/main"):
            folder = self.folder / path.removeprefix(f"{api}/tree/main").strip("/")
            self.send_tree(folder, everything="recursive=true" in self.path)
        elif path.startswith(f"/datasets/{REPOSITORY}/resolve/main/"):
            self.send_range(self.folder / path.removeprefix(f"/datasets/{REPOSITORY}/resolve/main/"))
        else:
            self.refuse(HTTPStatus.NOT_FOUND, "RepoNotFound")

    def do_POST(self) -> None:  # noqa: N802 - the name that its base looks for
        """Let nobody write."""
        self.refuse(HTTPStatus.FORBIDDEN, "Forbidden")

    def send_tree(self, folder: Path, *, everything: bool) -> None:
        """Send what is in a folder, or all that is below it."""
        if folder.is_dir():
            self.say([self.entry(one) for one in folder.glob("**/*" if everything else "*")])
        else:
            self.refuse(HTTPStatus.NOT_FOUND, "EntryNotFound")

    def entry(self, path: Path) -> dict[str, object]:
        """Describe a file or a folder."""
        kind, size = ("directory", 0) if path.is_dir() else ("file", path.stat().st_size)
        return {"type": kind, "oid": COMMIT, "size": size, "path": str(path.relative_to(self.folder))}

    def send_range(self, path: Path) -> None:
        """Send what the header asks for."""
        if not path.is_file():
            self.refuse(HTTPStatus.NOT_FOUND, "EntryNotFound")
            return
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        body = path.read_bytes()[int(first) : int(last) + 1 if last else None]
        self.answer(body, HTTPStatus.PARTIAL_CONTENT if "Range" in self.headers else HTTPStatus.OK)


class GitHubHandler(_Hub):
    """Knows one repository, whose trees are named by their path, and answers as https://docs.github.com/rest does."""

    def serve(self, path: str) -> None:
        """List a tree, or send what is in a file."""
        kind, _, name = path.removeprefix("/").partition("/")
        found = self.folder / ("" if name == "main" else name)
        if kind == "trees" and found.is_dir():
            self.say({"tree": [self.entry(one) for one in found.iterdir()]})
        elif kind == "contents" and found.is_file():
            self.say({"content": base64.b64encode(found.read_bytes()).decode()})
        else:
            self.refuse(HTTPStatus.NOT_FOUND, "Not Found")

    def entry(self, path: Path) -> dict[str, object]:
        """Describe a file or a folder."""
        sha = str(path.relative_to(self.folder))
        if path.is_dir():
            return {"path": path.name, "type": "tree", "mode": "040000", "sha": sha}
        return {"path": path.name, "type": "blob", "mode": "100644", "sha": sha, "size": path.stat().st_size}


@contextmanager
def serve(folder: Path, handler: type[WebHandler]) -> Iterator[str]:
    """Serve a folder as the repository of a hub; give the hub's URL."""
    with listening(type("Bound", (handler,), {"folder": folder, "lines": []})) as url:
        yield url
