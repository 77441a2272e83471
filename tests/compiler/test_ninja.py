"""What ninja writes is read in the forms that are known, and nothing is guessed."""

import pytest

from megacache._compiler.ninja import outputs, sources, timeless_deps, timeless_log


def test_last_entry_of_the_log_counts() -> None:
    """Of an output that was built twice, the last command counts; times are later than any, and outputs in order."""
    log = timeless_log("# ninja log v7\n5\t9\t123\tb.o\tffff\n1\t5\t99\ta.o\tabcd\n9\t12\t200\tb.o\t1234\n")
    late = 1 << 62
    assert log == f"# ninja log v7\n0\t0\t{late}\ta.o\tabcd\n0\t0\t{late}\tb.o\t1234\n"
    assert outputs(log) == {"a.o", "b.o"}


@pytest.mark.parametrize("text", ["", "# ninja log v4\n", "# ninja log v8\n", "# ninja log v5\na.o\n"])
def test_other_logs_are_refused(text: str) -> None:
    """A log of an unknown version, or of none, is not read."""
    with pytest.raises(ValueError, match=r"log|unpack"):
        timeless_log(text)


@pytest.mark.parametrize(
    "data", [b"", b"# ninjadeps\n\3\0\0\0", b"# ninjadeps\n\4\0\0\0\x10\0\0\x80" + bytes(12) + b"\7\0\0\0"]
)
def test_other_logs_of_headers_are_refused(data: bytes) -> None:
    """A log of another version is not read, nor is one that names a header which it does not have."""
    with pytest.raises(ValueError, match=r"log of headers|no name"):
        timeless_deps(data)


def test_log_of_headers_that_is_cut_off_ends_there() -> None:
    """What a ninja that was killed has left is read as far as it is whole, as ninja does."""
    whole = (
        b"# ninjadeps\n\4\0\0\0" + b"\x08\0\0\0a.o\0" + b"\xff\xff\xff\xff" + b"\x08\0\0\0b.h\0" + b"\xfe\xff\xff\xff"
    )
    deps = b"\x10\0\0\x80" + bytes(12) + b"\1\0\0\0"
    assert timeless_deps(whole + deps)[1] == {"b.h"}
    assert timeless_deps(whole + deps + b"\x10\0\0\x80\0\0") == timeless_deps(whole + deps)


def test_rules_name_their_inputs() -> None:
    """Inputs of each kind are named, with blanks and signs in their paths and over several lines."""
    rules = (
        "rule cc\n  command = x $in\n"
        "build a$:b.o: cc /m$ y/a.cpp $\n    b$$c.cpp | i.h || order |@ v\n\n"
        "build x.so: link a$:b.o\n"
    )
    assert sources(rules) == {"/m y/a.cpp", "b$c.cpp", "i.h", "order", "v", "a:b.o"}


@pytest.mark.parametrize("line", ["build a.o: cc $root/a.cpp", "build a.o: cc ${x}.cpp", "build a.o cc a.cpp"])
def test_rules_with_variables_are_refused(line: str) -> None:
    """A path that is not written out is not guessed."""
    with pytest.raises(ValueError, match="not understood"):
        sources(line)
