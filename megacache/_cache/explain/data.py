"""The part of a bundle that explains a miss: what the keys of its graphs were made of, fit to be shown to others.

It is a chunk of its own, which a warm start does not read. Paths and the names of hosts and users are taken out.
"""

import getpass
import re
import socket
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

from megacache import _compiler
from megacache._bundle import EXPLAIN_PART, Artifact, ChunkRef, Component, GraphKey, Manifest, Payload, pack_keys

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

_MAX_TEXT = 1_000
_MAX_CODE = 32_000
_DIGEST = 16
_FREED = re.compile(r";[ \w=]+ = None$", re.MULTILINE)


def anonymizer() -> Callable[[str], str]:
    """Make a function that takes out paths, URLs, the names of this host and user, and addresses in memory.

    Whatever looks like an absolute path goes, wherever it leads. This process's own folders go wherever
    they stand, also within a word.
    """
    folders, names = _pattern(_folders()), {name: shown for name, shown in _names() if name}
    words = re.compile(rf"(?<![A-Za-z0-9]){_pattern(names).pattern}(?![A-Za-z0-9])")

    def anonymous(text: str) -> str:
        text = folders.sub(_PATH, _ABSOLUTE.sub(_PATH, _REMOTE.sub(_URL, text)))
        return _POINTER.sub(_ADDRESS, words.sub(lambda match: names[match[0]], text))

    return anonymous


def _pattern(texts: Iterator[str] | dict[str, str]) -> re.Pattern[str]:
    # The longest first, for one folder may lie in another; `(?!)` matches nothing.
    longest_first = sorted(texts, key=len, reverse=True)
    return re.compile(f"(?:{'|'.join(map(re.escape, longest_first)) or '(?!)'})")


def _folders() -> Iterator[str]:
    yield from (sys.prefix, sys.base_prefix, tempfile.gettempdir())
    for folder in (Path.home, Path.cwd):
        with suppress(OSError, RuntimeError):  # no account, or a folder that was removed
            # As a container's home, `/` would be found in every path.
            if (found := folder()) != Path(found.anchor):
                yield str(found)


def _names() -> Iterator[tuple[str, str]]:
    host = socket.gethostname()
    yield from ((host, _HOST), (host.partition(".")[0], _HOST))
    with suppress(OSError, RuntimeError):
        yield Path.home().name, _USER
    with suppress(Exception):  # what it raises where there is no account depends on the version of Python
        yield getpass.getuser(), _USER


def collect(artifacts: Iterable[Artifact]) -> Iterator[GraphKey]:
    """Give what the keys of all graphs among some artifacts were made of, fit to be shown to others."""
    anonymous = anonymizer()
    known: dict[tuple[str, Component], Component] = {}
    for artifact in artifacts:
        key = _compiler.graph_key(artifact) if artifact.kind == "inductor" else None
        if key is not None:
            yield _readable(key, anonymous, known)


def explain_payloads(artifacts: Iterable[Artifact]) -> tuple[Payload, ...]:
    """Make the chunk for some artifacts; none if there is nothing to tell of them."""
    keys = tuple(collect(artifacts))
    if not keys:
        return ()
    raw = pack_keys(keys)
    return (Payload(part=EXPLAIN_PART, weight=len(raw), build=lambda: raw),)


def explain_chunks(manifest: Manifest) -> tuple[ChunkRef, ...]:
    """Give the chunks of this part."""
    return tuple(chunk for chunk in manifest.chunks if chunk.part == EXPLAIN_PART)


def _readable(
    key: GraphKey, anonymous: Callable[[str], str], known: dict[tuple[str, Component], Component]
) -> GraphKey:
    components = {}
    for name, raw in key.components.items():
        # Most values are the same for all graphs: each is made readable once.
        found = known.get((name, raw))
        if found is None:
            text = _short(anonymous(_code(raw.text)), _MAX_CODE) if name == "gm" else _value(raw.text, anonymous)
            found = known[name, raw] = Component(raw.digest[:_DIGEST], text)
        components[name] = found
    return replace(key, components=components, guard=_short(anonymous(key.guard), _MAX_TEXT))


def _code(text: str) -> str:
    """Leave out of a graph's code what says nothing: blank lines, comments, and where a value is let go."""
    lines = (line.rstrip() for line in _FREED.sub("", text).splitlines())
    return "\n".join(line for line in lines if line and not line.startswith("#"))


def _value(text: str, anonymous: Callable[[str], str]) -> str:
    # A value that cannot be read is still compared, by its digest.
    printable = text.replace("\n", " ").isprintable() and "\N{REPLACEMENT CHARACTER}" not in text
    return _short(anonymous(text), _MAX_TEXT) if printable else ""


def _short(text: str, most: int) -> str:
    # A document takes no lone surrogates.
    text = text.encode(errors="replace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"
