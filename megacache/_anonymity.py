"""Take out of a text what tells of the machine it was written on: paths, the host's name and the user's."""

import getpass
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

_PATH, _URL, _HOST, _USER, _ADDRESS = "<path>", "<url>", "<host>", "<user>", "<address>"
_NAME = r"[^\s'\"`,;:()\[\]{}<>|*]"
_ROOTS = "bin|data|dev|etc|home|lib|lib64|media|mnt|nfs|opt|private|proc|root|run|scratch|srv|tmp|Users|usr|var"
_REMOTE = re.compile(r"\b[A-Za-z][\w+.-]*://[^\s'\"]*")
_ABSOLUTE = re.compile(
    rf"(?<=')/[\w.~@][^'\n]*(?=')"  # between quotes, blanks belong to it
    rf'|(?<=")/[\w.~@][^"\n]*(?=")'
    rf"|(?:(?<=\\[nrt])|(?<=-[A-Z])|(?<![\w.)\]}}/]))~?/+[\w.~@%+-]{_NAME}*"
    rf"|~[\w-]+/{_NAME}*"
    rf"|/(?:{_ROOTS})/{_NAME}*"
    rf"|\b[A-Za-z]:\\{_NAME}*"
)
_POINTER = re.compile(r"\b0x[0-9a-fA-F]{6,}\b")


def anonymizer() -> Callable[[str], str]:
    """Make a function that takes out paths, URLs, the names of this host and user, and addresses in memory.

    Whatever looks like an absolute path goes, wherever it leads. What is left of this process's own folders goes as
    well, for a path may stand within a word.
    """
    folders, names = _pattern(_folders()), {name: shown for name, shown in _names() if name}
    words = re.compile(rf"(?<![A-Za-z0-9]){_pattern(names).pattern}(?![A-Za-z0-9])")

    def anonymous(text: str) -> str:
        text = folders.sub(_PATH, _ABSOLUTE.sub(_PATH, _REMOTE.sub(_URL, text)))
        return _POINTER.sub(_ADDRESS, words.sub(lambda match: names[match[0]], text))

    return anonymous


def _pattern(texts: Iterator[str] | dict[str, str]) -> re.Pattern[str]:
    """Match any of some texts, the longest first; without any, match nothing."""
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile(f"(?:{'|'.join(map(re.escape, longest_first)) or '(?!)'})")


def _folders() -> Iterator[str]:
    yield from (sys.prefix, sys.base_prefix, tempfile.gettempdir())
    for folder in (Path.home, Path.cwd):
        with suppress(OSError, RuntimeError):  # no account, or a folder that was removed
            if (found := folder()) != Path(found.anchor):
                yield str(found)


def _names() -> Iterator[tuple[str, str]]:
    host = socket.gethostname()
    yield from ((host, _HOST), (host.partition(".")[0], _HOST))
    with suppress(OSError, RuntimeError):
        yield Path.home().name, _USER
    with suppress(Exception):  # what it raises where there is no account depends on the version of Python
        yield getpass.getuser(), _USER
