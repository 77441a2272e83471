"""Read msgpack documents strictly, with errors that name the place.

A document is measured before it is read, because its values can take seventy times its bytes: an empty array is one
byte, and 72 in memory; a header of five bytes makes msgpack reserve room for all the items that it announces. The
forms are those of https://github.com/msgpack/msgpack/blob/master/spec.md.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Self

import msgpack

from megacache.errors import FormatError, UnsupportedFormatError

MAX_VALUES = 1 << 20
"""Values in one document, at all depths: they take some 100 MB at most."""
MAX_DEPTH = 32

_Form = tuple[int, int, int, int, int]
"""Bytes of the count; the count, where it has no bytes; bytes that follow; bytes and values for each one counted."""

MAX_ITEMS = 1 << 16
"""Items of one array, unless less is asked for."""
_MAX_FIELDS = 4_096
_MAX_NAME = 1_000
_MAX_TEXT = 16_384
_MAX_SHOWN = 60
_MAX_VERSION = 1 << 16


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
        # An explicit stack of what is left of the outer values: recursion would end at Python's own limit.
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


@dataclass(frozen=True, slots=True)
class Node:
    """One value of a document and the path to it."""

    value: Any
    path: str

    @classmethod
    def unpack(cls, data: bytes, what: str, *, values: int = MAX_VALUES) -> Self:
        """Read one msgpack value, of so many values in all; only plain types, no extension is ever looked at."""
        try:
            check_extent(data, values=values)
            found = msgpack.unpackb(
                data,
                strict_map_key=True,
                object_pairs_hook=_refuse_repetition,
                list_hook=_refuse_timestamps,
                ext_hook=_refuse_extension,
            )
            # No hook sees a value that is the whole document.
            (plain,) = _refuse_timestamps([found])
        except (ValueError, msgpack.exceptions.UnpackException, RecursionError) as error:
            msg = f"not msgpack: {error}"
            raise FormatError(msg, path=what) from error
        return cls(plain, what)

    def wrong(self, expected: str) -> FormatError:
        """Make the error that says what should stand here."""
        found = type(self.value).__name__
        if isinstance(self.value, str | bytes | int | float | None):
            short = self.value[:_MAX_SHOWN] if isinstance(self.value, str | bytes) else self.value
            found += f" {short!r:.{_MAX_SHOWN}}"
        return FormatError(f"expected {expected}, found {found}", path=self.path)

    def field(self, name: str) -> "Node":
        """Go to a field that must be there."""
        node = self.optional(name)
        if node is None:
            msg = f"no field {name!r}"
            raise FormatError(msg, path=self.path)
        return node

    def optional(self, name: str) -> "Node | None":
        """Go to a field that may be missing."""
        if not isinstance(self.value, dict):
            raise self.wrong("a map")
        return Node(self.value[name], f"{self.path}.{name}") if name in self.value else None

    def items(self, *, most: int = MAX_ITEMS) -> "list[Node]":
        """Give the items of an array."""
        if not isinstance(self.value, list) or len(self.value) > most:
            raise self.wrong(f"an array of at most {most}")
        return [Node(value, f"{self.path}[{n}]") for n, value in enumerate(self.value)]

    def leading(self, count: int) -> "list[Node]":
        """Give the first `count` items of an array; a later format may append more."""
        items = self.items()
        if len(items) < count:
            raise self.wrong(f"an array of at least {count}")
        return items[:count]

    def text(self) -> str:
        """Give a string of a reasonable length."""
        if not isinstance(self.value, str) or len(self.value) > _MAX_TEXT:
            raise self.wrong("a string")
        return self.value

    def data(self, *, most: int | None = None) -> bytes:
        """Give bytes, not more than `most` if that is said."""
        if not isinstance(self.value, bytes):
            raise self.wrong("bytes")
        if most is not None and len(self.value) > most:
            raise self.wrong(f"at most {most} bytes")
        return self.value

    def integer(self, *, most: int) -> int:
        """Give an integer from 0 to `most`."""
        if not isinstance(self.value, int) or isinstance(self.value, bool) or not 0 <= self.value <= most:
            raise self.wrong(f"an integer from 0 to {most}")
        return self.value

    def fields(self, *, most: int = _MAX_FIELDS) -> "Mapping[str, Node]":
        """Give all fields of a map of strings, whose names are short."""
        if not isinstance(self.value, dict) or len(self.value) > most:
            raise self.wrong(f"a map of at most {most} strings")
        if not all(isinstance(key, str) and len(key) <= _MAX_NAME for key in self.value):
            raise self.wrong(f"a map of strings of at most {_MAX_NAME} characters")
        return {key: Node(value, f"{self.path}.{key}") for key, value in self.value.items()}

    def check_major(self, major: int) -> int:
        """Refuse a format, its major and minor version, that has another major one; give the minor one."""
        found, minor = (item.integer(most=_MAX_VERSION) for item in self.leading(2))
        if found != major:
            msg = f"major version {found}, this megacache reads {major}"
            raise UnsupportedFormatError(msg, path=self.path, hint="upgrade megacache")
        return minor

    def texts(self, *, most: int = _MAX_FIELDS) -> Mapping[str, str]:
        """Give a map of strings to strings."""
        return {key: field.text() for key, field in self.fields(most=most).items()}


def pack_document(value: object, what: str) -> bytes:
    """Write one msgpack value that `Node.unpack` will read; raise `FormatError` if msgpack has no form for it."""
    try:
        return pack(value)
    except (ValueError, OverflowError) as error:
        msg = f"cannot be written: {error}"
        raise FormatError(msg, path=what) from error


def pack(value: object) -> bytes:
    """Write one msgpack value."""
    packed: bytes = msgpack.packb(value, use_bin_type=True)
    return packed


def _refuse_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    # Of a field that stands twice, two readers could take two values.
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("a field stands twice in one map")
    # The hook for lists sees no values of maps.
    _refuse_timestamps(list(found.values()))
    return found


def _refuse_timestamps(values: list[Any]) -> list[Any]:
    # msgpack reads this extension type by itself, and asks no `ext_hook`.
    if msgpack.Timestamp in map(type, values):
        raise ValueError("extension type -1, a timestamp")
    return values


def _refuse_extension(code: int, data: bytes) -> object:
    msg = f"extension type {code} of {len(data)} bytes"
    raise ValueError(msg)
