"""Find the graph that is most like another, and name what differs between their keys."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from os.path import commonprefix

from megacache._bundle import Component, GraphKey
from megacache._cache.explain.explanation import Difference
from megacache._runtime import MAX_SHOWN, shown

CODE = "gm"
"""The component that holds the graph's own code."""

_NO_CODE = Component("", "")
_MAX_COMPARED = 64
_TENSOR = "TensorMetadata("
_FOLLOWS_FROM_ROLE = (CODE, "example_inputs", "fx_kwargs[static_input_idxs]")
_TELLING = ("shape", "stride", "dtype", "device")
_MARK = 8
_MARKED = MAX_SHOWN - _MARK - 3


def nearest(missed: GraphKey, published: Iterable[GraphKey]) -> GraphKey | None:
    """Choose a graph with the same code, else one of the same role; of several, that with the fewest differences."""

    def distance(other: GraphKey) -> tuple[int, int, str]:
        return sum(1 for _ in _differing(missed, other)), -_common_code(missed, other), other.key

    candidates = [other for other in published if other.kind == missed.kind]
    same_code = [other for other in candidates if _code(other).digest == _code(missed).digest]
    candidates = same_code or [other for other in candidates if other.role == missed.role] or candidates
    if len(candidates) > _MAX_COMPARED:  # each comparison takes as long as 640 look-ups
        candidates.sort(key=lambda other: -_common_code(missed, other))
    return min(candidates[:_MAX_COMPARED], key=distance, default=None)


def differences(here: GraphKey, there: GraphKey) -> tuple[Difference, ...]:
    """Name the components that differ, with both values: the code first, then the inputs, then the rest by name.

    A forward graph has other code and inputs than a backward one; where the roles differ, these say nothing more.
    """
    names = sorted(_differing(here, there), key=_order)
    if here.role != there.role:
        names = [name for name in names if not name.startswith(_FOLLOWS_FROM_ROLE)]
    return tuple(found for name in names for found in _explain(name, *_both(name, here, there)))


def _differing(here: GraphKey, there: GraphKey) -> Iterator[str]:
    for name in here.components.keys() | there.components.keys():
        mine, other = _both(name, here, there)
        if mine is None or other is None or mine.digest != other.digest:
            yield name


def _both(name: str, here: GraphKey, there: GraphKey) -> tuple[Component | None, Component | None]:
    return here.components.get(name), there.components.get(name)


def _order(name: str) -> tuple[bool, bool, list[tuple[int, str]]]:
    """Put the code first and inputs second, numbers in their order."""
    pieces = [(int(piece or 0), word) for word, piece in re.findall(r"(\D+)(\d*)", name)]
    return name != CODE, not name.startswith("example_inputs"), pieces


def _explain(name: str, here: Component | None, there: Component | None) -> Iterator[Difference]:
    mine, other = (component.text if component else "" for component in (here, there))
    if name == CODE and mine and other:
        yield _difference(name, *_first_lines(mine.splitlines(), other.splitlines()))
    elif tensor := tuple(_tensor_differences(name, mine, other)):
        yield from tensor
    elif here and there and shown(mine) == shown(other):
        # What is shown of them is the same: their digests tell them apart.
        yield _difference(name, *(f"{shown(c.text)[:_MARKED]} [{c.digest[:_MARK]}]".lstrip() for c in (here, there)))
    else:
        yield _difference(name, _summary(mine), _summary(other))


def _summary(text: str) -> str:
    """Say of a tensor that only one graph takes what it is, in a few words."""
    if not text.startswith(_TENSOR):
        return text
    parts = _parts(text)
    return " ".join(_plain(parts[part]) for part in ("dtype", "shape", "device") if part in parts) or text


def _difference(name: str, here: str, there: str) -> Difference:
    return Difference(name=shown(name), here=shown(here), there=shown(there))


def _first_lines(mine: Sequence[str], other: Sequence[str]) -> tuple[str, str]:
    """Give the first line of each that is not in the other at the same place."""
    for one, two in zip_longest(mine, other, fillvalue=""):
        if one != two:
            return one.strip(), two.strip()
    alike = f"the same {len(mine)} lines; constants or lines after them differ"
    return alike, alike


def _tensor_differences(name: str, here: str, there: str) -> Iterator[Difference]:
    """Name the shape, the stride, the type and the device that differ, and other parts only if these agree."""
    if not here.startswith(_TENSOR) or not there.startswith(_TENSOR):
        return
    mine, other = _parts(here), _parts(there)
    changed = [part for part in {**mine, **other} if mine.get(part) != other.get(part)]
    # The other parts follow from these four, or tell what nobody chose.
    for part in [part for part in _TELLING if part in changed] or changed:
        yield _difference(f"{name}.{part}", _plain(mine.get(part, "")), _plain(other.get(part, "")))


def _code(key: GraphKey) -> Component:
    return key.components.get(CODE, _NO_CODE)


def _common_code(one: GraphKey, other: GraphKey) -> int:
    return len(commonprefix([_code(one).text, _code(other).text]))  # noqa: RUF071 - texts are no paths


def _parts(text: str) -> Mapping[str, str]:
    """Split `TensorMetadata(dtype=…, shape=torch.Size([8, 16]), …)` at the commas that no bracket holds."""
    parts, depth, start = [], 0, len(_TENSOR)
    for at, character in enumerate(text[start:], start):
        depth += (character in "([{") - (character in ")]}")
        if depth < 0 or (character == "," and not depth):
            parts.append(text[start:at].strip())
            start = at + 1
    return dict(part.split("=", 1) for part in parts if "=" in part)


def _plain(text: str) -> str:
    match = re.fullmatch(r"torch\.Size\((.*)\)|device\((.*)\)|torch\.(\w+)", text)
    return next(filter(None, match.groups()), text) if match else text
