"""What ninja writes beside what it builds: its log, the log of headers that compilers told it of, and its rules.

The forms are those of ninja 1.9 to 1.13, by `build_log.cc` and `deps_log.cc` of https://github.com/ninja-build/ninja.
What has another form raises `ValueError`.
"""

import re
import struct
from collections.abc import Iterator

LOG, DEPS, RULES = ".ninja_log", ".ninja_deps", "build.ninja"
_LOG_HEADER = re.compile(r"# ninja log v[567]")
_DEPS_HEADER = b"# ninjadeps\n" + struct.pack("<I", 4)
_SIZE = struct.Struct("<I")
_DEPS_MARK = 1 << 31
_HEAD = struct.Struct("<iQ")
"""Of what the log of headers says of an output: its number, and its time."""
_LATE = 1 << 62
"""In nanoseconds since 1970: later than any file."""
_CONTINUED = re.compile(r"\$\n *")
_EDGE = re.compile(r"build (?:\$[ :$]|[^:$])*:((?:\$[ :$]|[^$])*)")
_WORD = re.compile(r"(?:\$[ :$]|[^\s$])+")
_ESCAPED = re.compile(r"\$([ :$])")
_MARKS = frozenset({"|", "||", "|@"})
"""What stands before implicit inputs, those that only order the work, and those that check it."""


def timeless_log(text: str) -> str:
    """Give the log with times that no input is later than; what else it says of each output stays."""
    header, *lines = text.splitlines()
    if not _LOG_HEADER.fullmatch(header):
        raise ValueError(f"{header!r} is not the log of a known ninja")
    last: dict[str, str] = {}
    for line in lines:
        _, _, _, output, command = line.split("\t")
        last[output] = command
    return "\n".join([header, *(f"0\t0\t{_LATE}\t{output}\t{last[output]}" for output in sorted(last)), ""])


def outputs(log: str) -> frozenset[str]:
    """Name what ninja has built."""
    return frozenset(line.split("\t")[3] for line in log.splitlines()[1:])


def timeless_deps(data: bytes) -> tuple[bytes, frozenset[str]]:
    """Give the log of headers with times that no output is later than, and the paths of the headers."""
    if not data.startswith(_DEPS_HEADER):
        raise ValueError("not the log of headers of a known ninja")
    parts, paths, headers = [_DEPS_HEADER], list[str](), dict[int, list[int]]()
    for mark, record in _records(data):
        if not mark:
            paths.append(record[:-4].rstrip(b"\0").decode(errors="surrogateescape"))
            parts.append(_SIZE.pack(len(record)) + record)
            continue
        number, _ = _HEAD.unpack_from(record)
        headers[number] = [one for (one,) in struct.iter_unpack("<i", record[_HEAD.size :])]
        parts.append(_SIZE.pack(len(record) | _DEPS_MARK) + _HEAD.pack(number, _LATE) + record[_HEAD.size :])
    try:
        return b"".join(parts), frozenset(paths[one] for numbers in headers.values() for one in numbers)
    except IndexError as error:
        raise ValueError("a header has no name") from error


def _records(data: bytes) -> Iterator[tuple[bool, bytes]]:
    at = len(_DEPS_HEADER)
    # The last record of a ninja that was killed may be cut off: ninja cuts it off, too.
    while at + _SIZE.size <= len(data):
        (size,) = _SIZE.unpack_from(data, at)
        mark, size = size >= _DEPS_MARK, size % _DEPS_MARK
        at += _SIZE.size
        if at + size > len(data) or size < (_HEAD.size if mark else _SIZE.size):
            return
        yield mark, data[at : at + size]
        at += size


def sources(rules: str) -> frozenset[str]:
    """Give the paths that the rules name as inputs, those that other rules make among them."""
    found = set[str]()
    for line in _CONTINUED.sub(" ", rules).splitlines():
        if not line.startswith("build "):
            continue
        match = _EDGE.fullmatch(line)
        if match is None:  # a path with a variable in it is not understood here
            raise ValueError(f"not understood: {line[:200]!r}")
        words = _WORD.findall(match[1])
        found.update(_ESCAPED.sub(r"\1", word) for word in words[1:] if word not in _MARKS)
    return frozenset(found)
