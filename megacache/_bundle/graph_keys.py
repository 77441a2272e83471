"""The components of the keys of compiled graphs: the values, and their msgpack form.

Most of the 640 components of a key are settings of the compiler, and equal for all graphs of a process. The document
holds each value once, each set of settings once, and for each graph what is its own.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from megacache._bundle.document import MAX_ITEMS, Node, pack_document
from megacache.errors import FormatError

EXPLAIN_PART = "explain"

FORMAT = (1, 0)
"""Major and minor version, as a manifest has them."""
MAX_SIZE = 16 << 20
"""Bytes of one document; a larger one is neither written nor read."""

# A document is measured roughly while it is written: the other half is for what that leaves out.
_BUDGET = MAX_SIZE // 2
# A document holds no text of more than 16,384 characters.
_PIECE = 16_000
# Components of one graph; all others are settings, and mostly the same for all graphs.
_OWN = ("gm", "example_inputs", "fx_kwargs", "user_defined_triton")
_MAX_VALUES = 1 << 19
# A set of settings is stored once, and takes memory for each graph that refers to it.
_MAX_COMPONENTS = _BUDGET // 32
"""Of all graphs together."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Component:
    """The value of one component of a key."""

    digest: str
    """Decides whether two values are equal."""
    text: str
    """The value, for people; may be shortened, or empty."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphKey:
    """A graph's key, and what it was made of."""

    kind: str
    key: str
    components: Mapping[str, Component] = field(repr=False)
    """By name: `gm` (the graph's code), `example_inputs[0]`, `inductor_config[max_autotune]`, …"""
    guard: str = ""
    """The condition on sizes under which the compiled graph may be used; it is not part of the key."""

    @property
    def role(self) -> str:
        """Tell `inference`, `forward` or `backward`; empty if the key does not say."""
        backward, inference = (self.components.get(f"fx_kwargs[is_{name}]") for name in ("backward", "inference"))
        if backward is None or inference is None:
            return ""
        if backward.text == "True":
            return "backward"
        return "inference" if inference.text == "True" else "forward"


def pack_keys(keys: Iterable[GraphKey]) -> bytes:
    """Write as many keys as fit, in the order given; raise `FormatError` if no reader would accept them."""
    values: dict[Component, int] = {}
    settings: dict[tuple[tuple[str, int], ...], int] = {}
    graphs: list[object] = []
    size = 0
    for key in keys:
        size += sum(len(c.text) + 32 for c in set(key.components.values()) - values.keys()) + 32 * len(key.components)
        if size > _BUDGET:
            break
        indices = {name: values.setdefault(c, len(values)) for name, c in sorted(key.components.items())}
        own = {name: index for name, index in indices.items() if name.startswith(_OWN)}
        shared = tuple((name, index) for name, index in indices.items() if name not in own)
        graphs.append([key.kind, key.key, key.guard, settings.setdefault(shared, len(settings)), own])
    document = {
        "format": list(FORMAT),
        "values": [[value.digest, *_pieces(value.text)] for value in values],
        "settings": [dict(shared) for shared in settings],
        "graphs": graphs,
    }
    packed = pack_document(document, "explain")
    # What no reader would accept must not be published.
    parse_keys(packed)
    return packed


def parse_keys(data: bytes) -> tuple[GraphKey, ...]:
    """Read a document; raise `FormatError` where it is not what it should be."""
    if len(data) > MAX_SIZE:
        msg = f"{len(data)} bytes, at most {MAX_SIZE} are read"
        raise FormatError(msg, path="explain")
    node = Node.unpack(data, "explain")
    node.field("format").check_major(FORMAT[0])
    values = [_parse_value(item) for item in node.field("values").items(most=_MAX_VALUES)]
    settings = [_parse_components(item, values) for item in node.field("settings").items()]
    return tuple(_parse_graphs(node.field("graphs"), values, settings))


def _pieces(text: str) -> Iterator[str]:
    yield from (text[at : at + _PIECE] for at in range(0, len(text), _PIECE))


def _parse_value(node: Node) -> Component:
    node.leading(1)
    digest, *pieces = node.items()
    return Component(digest.text(), "".join(piece.text() for piece in pieces))


def _parse_components(node: Node, values: Sequence[Component]) -> Mapping[str, Component]:
    return {name: _pick(index, values) for name, index in node.fields(most=MAX_ITEMS).items()}


def _pick(node: Node, values: Sequence[Value]) -> Value:
    index = node.integer(most=_MAX_VALUES)
    if index >= len(values):
        raise node.wrong(f"an integer below {len(values)}")
    return values[index]


def _parse_graphs(
    node: Node, values: Sequence[Component], settings: Sequence[Mapping[str, Component]]
) -> Iterator[GraphKey]:
    left = _MAX_COMPONENTS
    for item in node.items():
        graph = _parse_graph(item.leading(5), values, settings)
        left -= len(graph.components)
        if left < 0:
            raise FormatError(f"more than {_MAX_COMPONENTS} components of keys", path=item.path)
        yield graph


def _parse_graph(
    items: Sequence[Node], values: Sequence[Component], settings: Sequence[Mapping[str, Component]]
) -> GraphKey:
    kind, key, guard, shared, own = items
    return GraphKey(
        kind=kind.text(),
        key=key.text(),
        guard=guard.text(),
        components={**_pick(shared, settings), **_parse_components(own, values)},
    )
