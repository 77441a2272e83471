"""A filesystem on local disk that fails on demand, as a disk or a network mount may, under the protocol `faulty`.

Only what no real disk can be made to do on purpose is done here: to answer late or never, wrongly, or with what was
true earlier. For full disks and those that may not be written to see `tests.kit.disks`.
"""

import errno
import os
from collections.abc import Callable
from typing import Any, ClassVar

import fsspec
from fsspec.implementations.local import LocalFileSystem

from tests.kit.servers.rules import Rules

PROTOCOL = "faulty"

_DRIPS = 20

Proceed = Callable[[], Any]
Action = Callable[[Proceed], Any]
RULES = Rules()
"""What to do with which request, and what was asked, of all such filesystems in this process."""


class FaultyFileSystem(LocalFileSystem):  # type: ignore[misc]
    """Local disk, of which requests are counted and may fail."""

    protocol = PROTOCOL
    earlier: ClassVar[dict[str, Any]] = {}

    @classmethod
    def _strip_protocol(cls, path: str) -> str:
        return str(LocalFileSystem._strip_protocol(str(path).removeprefix(f"{PROTOCOL}://")))

    def find(self, path: str, *args: Any, **options: Any) -> Any:
        """List."""
        return _do("LIST", path, lambda: LocalFileSystem.find(self, path, *args, **options))

    def cat_file(self, path: str, *args: Any, **options: Any) -> Any:
        """Read."""
        return _do("GET", path, lambda: LocalFileSystem.cat_file(self, path, *args, **options))

    def pipe_file(self, path: str, *args: Any, **options: Any) -> Any:
        """Write."""
        return _do("PUT", path, lambda: LocalFileSystem.pipe_file(self, path, *args, **options))


def register() -> None:
    """Make the protocol known to fsspec."""
    fsspec.register_implementation(PROTOCOL, FaultyFileSystem, clobber=True)


def _do(verb: str, path: str, proceed: Proceed) -> Any:
    line = f"{verb} {path}"
    action: Action | None = RULES.take(line)
    if action is stale:
        return FaultyFileSystem.earlier[line] if line in FaultyFileSystem.earlier else proceed()
    if action is not None:
        return action(proceed)
    answer = proceed()
    FaultyFileSystem.earlier.setdefault(line, answer)
    return answer


def delay(seconds: float) -> Action:
    """Answer rightly, later."""

    def act(proceed: Proceed) -> Any:
        RULES.healed(seconds)
        return proceed()

    return act


def hang(_: Proceed) -> Any:
    """Never answer, as long as the rule is in force."""
    RULES.healed()
    raise OSError(errno.EIO, os.strerror(errno.EIO))


def fail(code: int) -> Action:
    """Answer with an error of the operating system."""

    def act(_: Proceed) -> Any:
        raise OSError(code, os.strerror(code))

    return act


def truncate(proceed: Proceed) -> Any:
    """Give half of what was asked for."""
    data = proceed()
    return data[: len(data) // 2]


def flip(proceed: Proceed) -> Any:
    """Change one bit."""
    data = bytearray(proceed())
    data[len(data) // 2] ^= 0x10
    return bytes(data)


def drip(pause: float) -> Action:
    """Take twenty pauses."""
    return delay(_DRIPS * pause)


def stale(proceed: Proceed) -> Any:
    """Answer what was the answer to the same request when it was made for the first time."""
    raise AssertionError(proceed)
