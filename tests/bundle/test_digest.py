"""A digest is that of the bytes, and has one text form."""

import hashlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megacache._bundle import Digest
from megacache.errors import FormatError
from tests.kit.builders import UNHURRIED

HEX = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_digest_is_sha256() -> None:
    """The digest of `abc` is the one in the standard, FIPS 180-2."""
    assert str(Digest.of(b"abc")) == f"sha256:{HEX}"


@UNHURRIED
@given(st.binary())
def test_text_is_read_back(data: bytes) -> None:
    """What `str` writes, `parse` reads; bytes and a view of them have one digest."""
    digest = Digest.of(memoryview(data))
    assert Digest.parse(str(digest)) == digest == Digest(hashlib.sha256(data).hexdigest())


@pytest.mark.parametrize(
    "text",
    [
        "",
        HEX,
        f"sha256:{HEX[:-1]}",
        f"sha256:{HEX}0",
        f"sha256:{HEX}\n",
        f" sha256:{HEX}",
        f"sha256:{HEX.upper()}",
        f"SHA256:{HEX}",
        f"sha512:{HEX}",
        f"sha256:{'g' * 64}",
        f"sha256:{'٣' * 64}",
    ],
)
def test_other_text_is_refused(text: str) -> None:
    """Anything but `sha256:` with 64 lower-case hex digits is a `FormatError` that shows it."""
    with pytest.raises(FormatError) as caught:
        Digest.parse(text)
    assert repr(text) in str(caught.value)


def test_long_text_is_not_repeated_in_full() -> None:
    """An error about a text of a million letters does not hold a million letters."""
    with pytest.raises(FormatError) as caught:
        Digest.parse("x" * 1_000_000)
    assert len(str(caught.value)) < 200


def test_digests_are_ordered_by_their_digits() -> None:
    """Sorting digests is sorting their names in a store."""
    digests = [Digest.of(bytes([n])) for n in range(20)]
    assert [digest.hex for digest in sorted(digests)] == sorted(digest.hex for digest in digests)
