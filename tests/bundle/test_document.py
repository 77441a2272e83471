"""Documents are read strictly, and what is wrong is named by its place."""

from collections.abc import Callable

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megacache._bundle import Node, pack
from megacache._bundle.document import pack_document
from megacache.errors import FormatError, UnsupportedFormatError
from tests.kit.builders import UNHURRIED, any_text

values = st.recursive(
    st.none() | st.booleans() | st.integers(-(1 << 63), (1 << 64) - 1) | st.binary(max_size=9) | any_text,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(any_text, inner, max_size=4),
    max_leaves=12,
)


def node(value: object) -> Node:
    """Write a value and read it again."""
    return Node.unpack(pack(value), "document")


@UNHURRIED
@given(values)
def test_what_is_written_is_read(value: object) -> None:
    """Plain values come back as they were."""
    assert node(value).value == value


@settings(UNHURRIED, max_examples=500)
@given(st.binary(max_size=60))
def test_any_other_bytes_raise_a_format_error(data: bytes) -> None:
    """Arbitrary bytes either are a value or raise `FormatError`, never another exception."""
    try:
        Node.unpack(data, "document")
    except FormatError as error:
        assert error.path == "document"  # noqa: PT017 - raising is one of two right answers


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        pack([1, 2])[:-1],
        pack([1, 2]) + b"\0",
        b"\xdd\xff\xff\xff\xff",
        b"\xdf\xff\xff\xff\xff",
        b"\xdb\xff\xff\xff\xff",
        b"\xa1\xff",
        b"\x91" * 100_000,
        b"\x81\x01\x01",
        b"\x81\x90\x01",
        b"\x82\xa1a\x01\xa1a\x01",
    ],
    ids=[
        "nothing",
        "no type",
        "cut off",
        "trailing byte",
        "endless array",
        "endless map",
        "endless text",
        "no UTF-8",
        "too deep",
        "number as key",
        "array as key",
        "field twice",
    ],
)
def test_what_is_not_one_value_is_refused(data: bytes) -> None:
    """Bytes that are not exactly one well-formed value raise `FormatError`."""
    with pytest.raises(FormatError, match="document: not msgpack"):
        Node.unpack(data, "document")


@pytest.mark.parametrize("code", [0, 1, 127])
def test_extension_types_are_refused(code: int) -> None:
    """No extension is ever looked at, wherever it stands."""
    with pytest.raises(FormatError, match=f"extension type {code} of 3 bytes"):
        node({"field": [msgpack.ExtType(code, b"abc")]})


def test_place_is_named_from_the_root() -> None:
    """An error deep in a document says the way to it."""
    deep = node({"manifest": {"chunks": [["a"], ["b", 5]]}}).field("manifest").field("chunks").items()[1]
    with pytest.raises(FormatError, match="expected a string, found int 5") as caught:
        deep.leading(2)[1].text()
    assert caught.value.path == "document.manifest.chunks[1][1]"
    assert str(caught.value).startswith("document.manifest.chunks[1][1]: ")


NO_TEXT: tuple[object, ...] = (b"bytes", 1, None, ["a"], "x" * 16_385)
NO_TEXTS: tuple[object, ...] = ([], "ab", {"a": 1}, {b"a": "b"}, {"a": None}, {"a": "x" * 16_385})
NO_ITEMS: tuple[object, ...] = ("ab", {"a": 1}, b"ab", None)
NO_SMALL_INTEGER: tuple[object, ...] = (-1, 11, 1 << 63, True, False, 1.0, "1", None)
TOO_MANY: tuple[object, ...] = ([1, 2, 3], {"a": "b", "c": "d"}, {"x" * 1_001: "b"})
WRONG: list[tuple[Callable[[Node], object], object]] = [
    *((Node.text, value) for value in NO_TEXT),
    *((Node.data, value) for value in ("text", 1, None)),
    *((Node.items, value) for value in NO_ITEMS),
    *((Node.texts, value) for value in NO_TEXTS),
    *((lambda n: n.integer(most=10), value) for value in NO_SMALL_INTEGER),
    *((lambda n: n.items(most=2), value) for value in TOO_MANY),
    *((lambda n: n.texts(most=1), value) for value in TOO_MANY),
    (lambda n: n.data(most=2), b"123"),
    *((lambda n: n.leading(2), value) for value in (*NO_ITEMS, [], [1])),
    *((lambda n: n.field("a"), value) for value in (*NO_TEXT, [], {}, {"b": 1})),
    *((lambda n: n.optional("a"), value) for value in (*NO_TEXT, [])),
]


@pytest.mark.parametrize(("read", "value"), WRONG)
def test_other_types_are_refused(read: Callable[[Node], object], value: object) -> None:
    """A value of another type, or out of its bounds, is a `FormatError` and is never converted."""
    with pytest.raises(FormatError, match=r"^document"):
        read(node(value))


def test_values_within_their_bounds_are_given() -> None:
    """Each reader gives what it is for, up to the bounds it has."""
    assert node("x" * 16_384).text() == "x" * 16_384
    assert node(b"\0").data() == b"\0"
    assert (node(0).integer(most=10), node(10).integer(most=10)) == (0, 10)
    assert node({"a": "b"}).texts() == {"a": "b"}
    assert node({"x" * 1_000: "b"}).texts(most=1) == {"x" * 1_000: "b"}
    assert (node(b"12").data(most=2), len(node([1, 2]).items(most=2))) == (b"12", 2)
    assert [item.value for item in node([1, 2, 3]).leading(2)] == [1, 2]
    assert node({"a": None}).field("a").value is None


def test_optional_field_may_be_missing() -> None:
    """A missing optional field is None; one that holds nil is there."""
    assert node({}).optional("a") is None
    assert node({"a": None}).optional("a") == Node(None, "document.a")


def test_error_does_not_repeat_a_long_value() -> None:
    """An error about a long value shows its beginning only."""
    with pytest.raises(FormatError) as caught:
        node("x" * 1_000_000).data()
    assert len(str(caught.value)) < 200


def test_deep_nesting_is_a_format_error() -> None:
    """A value nested a thousand deep is refused like any other that is not what should stand there."""
    nested: object = 1
    for _ in range(500):
        nested = [nested]
    with pytest.raises(FormatError, match="found list"):
        Node(nested, "deep").text()


def test_another_major_version_is_refused() -> None:
    """A minor version may be any, a major one only that which is read."""
    node([1, 7]).check_major(1)
    with pytest.raises(UnsupportedFormatError, match=r"^document: major version 2, this megacache reads 1; upgrade"):
        node([2, 0]).check_major(1)


def test_value_without_a_form_is_named() -> None:
    """What msgpack cannot write is a fault of the document that holds it."""
    with pytest.raises(FormatError, match=r"^manifest: cannot be written: "):
        pack_document({"size": 1 << 64}, "manifest")


@pytest.mark.parametrize("data", [b"\xd6\xff" + bytes(4), b"\xd7\xff" + bytes(8), b"\xc7\x0c\xff" + bytes(12)])
@pytest.mark.parametrize("before", [b"", b"\x91", b"\x81\xa1a", b"\x92\xc0\x91", b"\x81\xa1a\x92\xc0"])
def test_timestamp_is_refused_as_any_extension(before: bytes, data: bytes) -> None:
    """The extension type that msgpack knows by itself is refused wherever it stands."""
    with pytest.raises(FormatError, match="not msgpack: extension type -1"):
        Node.unpack(before + data, "document")
