"""The part of a bundle that explains a miss: what the keys of its graphs were made of.

It is a chunk of its own, which a warm start does not read.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from megacache import _compiler
from megacache._anonymity import anonymizer
from megacache._bundle import Artifact, ChunkRef, Component, GraphKey, Manifest, Payload, pack_keys

PART = "explain"

_MAX_TEXT = 1_000
_MAX_CODE = 32_000
_DIGEST = 16
_FREED = re.compile(r";[ \w=]+ = None$", re.MULTILINE)


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
    return (Payload(part=PART, weight=len(raw), build=lambda: raw),)


def explain_chunks(manifest: Manifest) -> tuple[ChunkRef, ...]:
    """Give the chunks of this part."""
    return tuple(chunk for chunk in manifest.chunks if chunk.part == PART)


def _readable(
    key: GraphKey, anonymous: Callable[[str], str], known: dict[tuple[str, Component], Component]
) -> GraphKey:
    """Anonymise and shorten; most values are the same for all graphs, and are done once."""
    components = {}
    for name, raw in key.components.items():
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
    printable = text.replace("\n", " ").isprintable() and "\N{REPLACEMENT CHARACTER}" not in text
    return _short(anonymous(text), _MAX_TEXT) if printable else ""


def _short(text: str, most: int) -> str:
    text = text.encode(errors="replace").decode()
    return text if len(text) <= most else f"{text[: most - 1]}…"
