"""Walk over msgpack before it is read: what is made of it can take seventy times its bytes.

An empty array is one byte, and 72 in memory; a header of five bytes makes msgpack reserve room for all the items that
it announces. The forms are those of https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from collections.abc import Iterator

MAX_VALUES = 1 << 20
"""Values in one document, at all depths: they take some 100 MB at most."""
MAX_DEPTH = 32

_Form = tuple[int, int, int, int, int]
"""Bytes of the count; the count, where it has no bytes; bytes that follow; bytes and values for each one counted."""


def check_extent(data: bytes, *, values: int = MAX_VALUES, depth: int = MAX_DEPTH) -> None:
    """Raise `ValueError` for bytes that announce more values than allowed, or nest them deeper, or end too soon.

    Nothing is built, and nothing is read twice; whether all the bytes mean something is left to who reads them.
    """
    at, left, announced = 0, 1, 1
    outer: list[int] = []
    while left or outer:
        if not left:
            left = outer.pop()
            continue
        left -= 1
        if at >= len(data):
            raise ValueError("it ends too soon")
        width, count, follow, size, inner = _FORMS[data[at]]
        if width:
            count = int.from_bytes(data[at + 1 : at + 1 + width], "big")
        at += 1 + width + follow + size * count
        if inner and count:
            announced += inner * count
            if announced > values:
                raise ValueError(f"more than {values} values are announced")
            if len(outer) == depth:
                raise ValueError(f"values are nested more than {depth} deep")
            outer.append(left)
            left = inner * count
    if at > len(data):
        raise ValueError("it ends too soon")


def _forms() -> Iterator[_Form]:
    """Give the form of each first byte, in their order."""
    yield from [(0, 0, 0, 0, 0)] * 0x80
    yield from ((0, count, 0, 0, 2) for count in range(16))  # maps
    yield from ((0, count, 0, 0, 1) for count in range(16))  # arrays
    yield from ((0, count, 0, 1, 0) for count in range(32))  # texts
    yield from [(0, 0, 0, 0, 0)] * 4
    yield from ((width, 0, 0, 1, 0) for width in (1, 2, 4))  # bytes
    yield from ((width, 0, 1, 1, 0) for width in (1, 2, 4))  # extensions
    yield from ((0, 0, follow, 0, 0) for follow in (4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 2, 3, 5, 9, 17))  # numbers …
    yield from ((width, 0, 0, 1, 0) for width in (1, 2, 4))  # texts
    yield from ((width, 0, 0, 0, 1) for width in (2, 4))  # arrays
    yield from ((width, 0, 0, 0, 2) for width in (2, 4))  # maps
    yield from [(0, 0, 0, 0, 0)] * 32


_FORMS: tuple[_Form, ...] = tuple(_forms())
