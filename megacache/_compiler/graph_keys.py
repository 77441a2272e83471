"""Read what PyTorch's key of a graph was made of, and its guard, out of what it recorded for that graph.

Inductor keeps with each compiled graph the lines that describe its key, one for each component: `[<digest>] name:
value`. They are found by their attribute's name and read opcode by opcode with `pickletools`, which builds no object
and runs nothing: unpickling the graph would load all its kernels for a list of texts.
"""

import pickletools
import re
from collections.abc import Iterator
from io import BytesIO

from megacache._bundle import Artifact, Component, GraphKey
from megacache._compiler.door import door
from megacache._compiler.pickles import TEXTS, attribute_texts

# Pickle puts `\x8c` and a byte of length before a short text; \x34 is 52, the length of a key.
_LINES = b"\x8c\x1b_fx_graph_cache_debug_lines"
_GUARD = "guards_expr"
_GRAPH_KEY = re.compile(rb"\x8c\x34(f[a-z2-7]{51})")
_LINE = re.compile(r"\[(?P<digest>[a-z2-7]{51})\] (?P<name>[^:\n]{1,400}): (?P<text>.*)", re.DOTALL)
_LIST = frozenset({"MEMOIZE", "EMPTY_LIST", "MARK", "APPENDS", "APPEND", "FRAME"})


def graph_key(artifact: Artifact) -> GraphKey | None:
    """Read the components of an `inductor` artifact's key; None if it does not hold them.

    Raises `CompilerError` if what it holds is written in another way than is known here.
    """
    content = bytes(artifact.content)
    with door("describing a graph's key"):
        components = dict(_components(content))
    if not components:
        return None
    return GraphKey(kind=artifact.kind, key=artifact.key, components=components, guard=guard(artifact) or "")


def guard(artifact: Artifact) -> str | None:
    """Read the condition on sizes under which PyTorch uses an `inductor` or `aot_autograd` artifact.

    It is empty if there is none, and None if it cannot be read. An entry that holds its graphs has theirs as well.
    """
    try:
        found = list(attribute_texts(bytes(artifact.content), _GUARD))
    except ValueError:  # it is written in another way than is known here
        return None
    return ("\n".join(found) if any(found) else "") if found else None


def graphs_below(artifact: Artifact) -> frozenset[str]:
    """Give the keys of the `inductor` artifacts that an `aot_autograd` artifact builds on."""
    return frozenset(key.decode() for key in _GRAPH_KEY.findall(artifact.content))


def _components(content: bytes) -> Iterator[tuple[str, Component]]:
    for name, value in _operations(content, _LINES):
        match = _LINE.fullmatch(str(value)) if name in TEXTS else None
        if match:
            yield match["name"], Component(match["digest"], match["text"])
        elif name not in _LIST:
            return


def _operations(content: bytes, attribute: bytes) -> Iterator[tuple[str, object]]:
    """Walk the opcodes after an attribute's name; what stands before it is skipped."""
    at = content.find(attribute)
    if at < 0:
        return
    stream = BytesIO(content)
    stream.seek(at + len(attribute))
    for operation, value, _ in pickletools.genops(stream):
        yield operation.name, value
