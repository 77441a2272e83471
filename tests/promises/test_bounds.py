"""Counts and sizes are bounded: what is read takes no more memory than it declares, and no gigabytes."""

import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megacache._bundle import pack, parse_keys
from megacache._bundle.chunk import compress, decompress
from megacache._cache.explain.nearest import differences
from megacache.errors import BundleError, FormatError
from tests.corpus.frames import bomb
from tests.fuzz.mutations import changed
from tests.fuzz.readers import read_explain
from tests.kit.builders import UNHURRIED
from tests.kit.processes import run_code


@settings(UNHURRIED, max_examples=200)
@given(st.binary(max_size=300), st.integers(0, 400), st.data())
def test_decompression_gives_the_declared_size_or_nothing(raw: bytes, size: int, data: st.DataObject) -> None:
    """No frame, changed or not, gives another number of bytes than was declared."""
    stored = changed(compress(raw), random.Random(data.draw(st.integers(0, 1 << 32))))
    for frame in (compress(raw), stored, bomb(size, blocks=4)):
        try:
            assert len(decompress(frame, raw_size=size)) == size
        except BundleError:
            continue


BOMBS = """
import resource, sys
from megacache._bundle import parse_blob
from megacache._bundle.chunk import decompress
from megacache._bundle import Node, pack
from megacache._bundle.envelope import PAYLOAD_TYPE
from megacache._bundle import parse_signatures
from megacache._bundle import parse_keys
from megacache._bundle import unseal
from megacache.errors import BundleError
from tests.corpus.frames import bomb

MIB = 1 << 20
def enveloped(payload):
    return pack({"payloadType": PAYLOAD_TYPE, "payload": payload, "signatures": []})
def many(one, count):
    return b"\\xdd" + count.to_bytes(4, "big") + one * count
def shared():
    settings = [{f"n{number}": 0 for number in range(50_000)}]
    graphs = [["inductor", "k", "", 0, {}]] * 50_000
    return pack({"format": [1, 0], "values": [["d", "text"]], "settings": settings, "graphs": graphs})
CASES = {
    "arrays": (unseal, lambda: enveloped(many(b"\\x90", 60 * MIB))),
    "maps": (unseal, lambda: enveloped(many(b"\\x80", 60 * MIB))),
    "texts": (unseal, lambda: enveloped(many(b"\\xa2ab", 20 * MIB))),
    "numbers": (unseal, lambda: enveloped(many(b"\\xcd\\xff\\xff", 20 * MIB))),
    "headers": (unseal, lambda: enveloped((b"\\xdd" + (MIB - 1).to_bytes(4, "big")) * 400 + bytes(60 * MIB))),
    "nested": (unseal, lambda: enveloped(b"\\x91" * (60 * MIB))),
    "one long text": (unseal, lambda: enveloped(pack({"format": "x" * (60 * MIB)}))),
    "one long name": (unseal, lambda: enveloped(pack({"x" * (60 * MIB): 1, "format": [1, 1]}))),
    "signatures": (parse_signatures, lambda: many(b"\\x80", MIB)),
    "settings": (parse_keys, shared),
    "frame": (lambda data: decompress(data, raw_size=100), lambda: bomb(100, blocks=20_000)),
}
read, build = CASES[sys.argv[1]]
data = build()
size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + 400 * MIB, size + 400 * MIB))
try:
    read(data)
except BundleError as error:
    print("refused", type(error).__name__, len(str(error)) < 1_000)
"""
CASES = re.findall(r'^    "([a-z ]+)":', BOMBS, re.MULTILINE)


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this system does not tell how large a process is")
@pytest.mark.parametrize("case", CASES)
def test_sixty_megabytes_of_nothing_take_no_gigabytes(case: str) -> None:
    """The largest document that is read, made to unfold in memory, is refused by a process with 400 MiB to spare."""
    done = run_code(BOMBS, case)
    assert done.stdout == "refused FormatError True\n", done.stderr[-2_000:]


def test_set_of_settings_counts_for_each_graph() -> None:
    """A document cannot refer to a large set of settings from each of many graphs."""
    settings_of_all = [{f"n{number}": 0 for number in range(1_000)}]
    document = {"format": [1, 0], "values": [["d", "t"]], "settings": settings_of_all}
    few, many = ([["inductor", "k", "", 0, {}]] * count for count in (200, 300))
    assert len(parse_keys(pack({**document, "graphs": few}))) == 200
    with pytest.raises(FormatError, match=r"explain.graphs\[262\]: more than 262144 components"):
        parse_keys(pack({**document, "graphs": many}))


def test_long_number_in_a_name_is_compared_as_any() -> None:
    """A name with more digits than Python turns into a number is refused, and one with many is not in the way."""
    graphs = [["inductor", "k", "", 0, {}], ["inductor", "l", "", 1, {}]]
    for digits in (900, 5_000):
        named = [{"n" + "1" * digits: 0}, {}]
        data = pack({"format": [1, 0], "values": [["d", "t"]], "settings": named, "graphs": graphs})
        if digits > 1_000:
            with pytest.raises(FormatError):
                parse_keys(data)
        else:
            read_explain(data)
            assert len(differences(*parse_keys(data))) == 1
