"""A process that has imported PyTorch and its compiler once, and forks children that run `tests.kit.child`.

Of the seconds of a child that compiles or loads a small model most are imports. A child that is forked has the modules
of PyTorch and of the clients of stores, and none of megacache or of the tests; nothing has been compiled, and no thread
was started. From there on it does what `python -m tests.kit.child` does, to the end of its interpreter. What it shares
with its siblings: the seed of Python's hashes, and whatever PyTorch reads once, as it is imported. It cannot use a GPU:
PyTorch's build for CUDA loads the driver as it is imported, and the driver does not outlive a fork.
"""

import gc
import importlib.util
import json
import os
import runpy
import socket
import sys
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAM = "tests.kit.child"
LARGEST = 1 << 20
"""Bytes of a request."""
_CLIENTS = ("fsspec", "fsspec.implementations.local", "msgpack", "zstandard", "platformdirs", "s3fs", "gcsfs")


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """What a child is to do, and where."""

    steps: str
    """Its argument."""
    environment: dict[str, str]
    """All of its variables."""
    stdout: int
    """The file that it writes to."""
    stderr: int
    """The other one."""
    told: int
    """A socket for its process id and, when it has ended, its status."""

    def close(self) -> None:
        """Close the files."""
        for file in (self.stdout, self.stderr, self.told):
            os.close(file)


def main() -> None:
    """Fork a child for each request, until there are no more; in a child, become the program."""
    control = socket.socket(fileno=int(sys.argv[1]))
    _import()
    request = _serve(control)
    if request is not None:
        _become(request)
        runpy.run_module(PROGRAM, run_name="__main__", alter_sys=True)


def _import() -> None:
    import torch._inductor.compile_fx  # noqa: F401

    for name in _CLIENTS:
        # Where a client is not installed, all that needs none can still be tested.
        if importlib.util.find_spec(name.partition(".")[0]):
            importlib.import_module(name)
    ours = [name for name in sys.modules if name.partition(".")[0] == "megacache"]
    compiled = list(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"]).iterdir())
    assert (ours, compiled, threading.active_count()) == ([], [], 1), "a child would not be as good as new"
    gc.freeze()  # or each child would copy all that is here when it first collects


def _serve(control: socket.socket) -> Request | None:
    """Give a request in the child that is to do it, and None in the server when all is done."""
    keepers = set[int]()
    while (request := _received(control)) is not None:
        keeper = os.fork()
        if not keeper:
            control.close()
            child = os.fork()
            if not child:
                return request
            _keep(child, request)
        request.close()
        keepers = {one for one in [*keepers, keeper] if not os.waitpid(one, os.WNOHANG)[0]}
    for one in keepers:
        os.waitpid(one, 0)
    return None


def _received(control: socket.socket) -> Request | None:
    data, files, *_ = socket.recv_fds(control, LARGEST, 3)
    if not data:
        return None
    stdout, stderr, told = files
    asked: dict[str, Any] = json.loads(data)
    return Request(**asked, stdout=stdout, stderr=stderr, told=told)


def _keep(child: int, request: Request) -> None:
    """Wait for a child, tell how it ended, and end as well."""
    os.write(request.told, f"{child}\n".encode())
    _, status = os.waitpid(child, 0)
    os.write(request.told, f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def _become(request: Request) -> None:
    """Take the place of a process that was started anew."""
    os.environ.clear()
    os.environ.update(request.environment)
    os.dup2(request.stdout, 1)
    os.dup2(request.stderr, 2)
    request.close()
    sys.argv = [sys.argv[0], request.steps]


if __name__ == "__main__":
    main()
