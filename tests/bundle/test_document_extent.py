"""What a document would take in memory is known before anything is made of it."""

import msgpack
import pytest
from hypothesis import given
from hypothesis import strategies as st

from megacache._bundle import pack
from megacache._bundle.document import MAX_DEPTH, check_extent
from tests.bundle.test_document import values
from tests.kit.builders import UNHURRIED


def count(value: object) -> int:
    """Count values at all depths, as msgpack writes them."""
    if isinstance(value, dict):
        return 1 + sum(count(part) for pair in value.items() for part in pair)
    return 1 + sum(map(count, value)) if isinstance(value, list) else 1


def depth(value: object) -> int:
    """Tell how many arrays and maps that hold something are within one another."""
    parts = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + max(map(depth, parts)) if parts else 0


@UNHURRIED
@given(values)
def test_values_and_depth_are_counted(value: object) -> None:
    """A document passes with exactly as many values and levels as it has, and with none less."""
    packed = pack(value)
    check_extent(packed, values=count(value), depth=depth(value))
    if count(value) > 1:
        with pytest.raises(ValueError, match="values are announced"):
            check_extent(packed, values=count(value) - 1, depth=depth(value))
        with pytest.raises(ValueError, match="nested more than"):
            check_extent(packed, values=count(value), depth=depth(value) - 1)


@pytest.mark.parametrize("first", range(256))
def test_every_form_is_known(first: int) -> None:
    """Whatever msgpack reads after a first byte, and no more, is walked over; what it does not read ends too soon."""
    rest = bytes(7) + b"\1" + bytes(24)
    unpacker = msgpack.Unpacker(strict_map_key=False, ext_hook=lambda code, data: (code, data))
    unpacker.feed(bytes([first]) + rest)
    if first == 0xC1:
        return
    unpacker.skip()
    size = unpacker.tell()
    check_extent((bytes([first]) + rest)[:size])
    if size > 1:
        with pytest.raises(ValueError, match="too soon"):
            check_extent((bytes([first]) + rest)[: size - 1])


@UNHURRIED
@given(st.binary(max_size=60))
def test_what_msgpack_reads_passes(data: bytes) -> None:
    """No bytes that are a document of a few values are refused."""
    try:
        msgpack.unpackb(data, strict_map_key=False)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException):
        return
    check_extent(data, values=200, depth=60)


def test_announcement_is_enough() -> None:
    """A count is refused by itself, whether or not its values follow."""
    for data in (b"\xdd\xff\xff\xff\xff", b"\xdf\x7f\xff\xff\xff", b"\x92\xdd\x00\x0f\xff\xff\xc0"):
        with pytest.raises(ValueError, match="more than 1000 values"):
            check_extent(data, values=1_000)


def test_documents_may_be_as_deep_as_any_format_will_be() -> None:
    """Thirty-two levels pass, and one more does not."""
    check_extent(b"\x91" * MAX_DEPTH + b"\xc0")
    with pytest.raises(ValueError, match="more than 32 deep"):
        check_extent(b"\x91" * (MAX_DEPTH + 1) + b"\xc0")
