"""PyTorch's portable blob, read and written without PyTorch.

The layout is that of `torch.utils._appending_byte_serializer` and `torch.compiler._cache`, equal in 2.8 to 2.15: a
big-endian CRC-32 of the rest, a 64-bit version, then for each group the kind, a count, and as many pairs of key and
content. Bytes are preceded by their 64-bit length; strings are base64 bytes. PyTorch's own reader keeps only the last
group of each kind, so a blob is always written with one group per kind.
"""

import base64
import binascii
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from operator import attrgetter

from megacache.errors import FormatError, IntegrityError

_VERSION = 1
_CRC_SIZE = 4
_U64_SIZE = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """One entry that PyTorch recorded."""

    kind: str
    """`inductor`, `aot_autograd`, `autotune`, `pgo`, … as PyTorch names it."""
    key: str
    """PyTorch's cache key; several artifacts may share one."""
    content: bytes | memoryview = field(repr=False)

    @property
    def weight(self) -> int:
        """Bytes that this artifact takes in a blob, at most."""
        return len(self.content) + 2 * len(self.key) + 64


def parse_blob(data: bytes) -> Iterator[Artifact]:
    """Yield every artifact of a blob, of all groups; contents are views of `data`, not copies.

    Raises `FormatError` or `IntegrityError` before the first artifact if the frame is wrong, and on the way if a
    length lies.
    """
    view = memoryview(data)
    _check_frame(view)
    reader = _Reader(view[_CRC_SIZE + _U64_SIZE :])
    while not reader.finished:
        kind = reader.text()
        for _ in range(reader.u64()):
            yield Artifact(kind=kind, key=reader.text(), content=reader.data())


def build_blob(artifacts: Iterable[Artifact]) -> bytes:
    """Write a blob that PyTorch loads completely: one group per kind."""
    out = bytearray(_CRC_SIZE)
    out += _u64(_VERSION)
    for kind, group in groupby(sorted(artifacts, key=attrgetter("kind", "key")), key=attrgetter("kind")):
        members = list(group)
        _put(out, base64.b64encode(kind.encode()))
        out += _u64(len(members))
        for artifact in members:
            _put(out, base64.b64encode(artifact.key.encode()))
            _put(out, artifact.content)
    with memoryview(out) as view:
        crc = zlib.crc32(view[_CRC_SIZE:])
    out[:_CRC_SIZE] = crc.to_bytes(_CRC_SIZE, "big")
    return bytes(out)


def _check_frame(view: memoryview) -> None:
    if len(view) < _CRC_SIZE + _U64_SIZE:
        msg = f"blob of {len(view)} bytes is too short"
        raise FormatError(msg)
    expected, actual = int.from_bytes(view[:_CRC_SIZE], "big"), zlib.crc32(view[_CRC_SIZE:])
    if expected != actual:
        raise IntegrityError("blob", expected=f"crc32 {expected:08x}", actual=f"{actual:08x}")
    version = int.from_bytes(view[_CRC_SIZE : _CRC_SIZE + _U64_SIZE], "big")
    if version != _VERSION:
        msg = f"blob of version {version}, not {_VERSION}"
        raise FormatError(msg, hint="it was saved by a PyTorch that this megacache does not know")


def _u64(number: int) -> bytes:
    return number.to_bytes(_U64_SIZE, "big")


def _put(out: bytearray, data: bytes | memoryview) -> None:
    out += _u64(len(data))
    out += data


class _Reader:
    def __init__(self, view: memoryview) -> None:
        self._view = view
        self._at = 0

    @property
    def finished(self) -> bool:
        return self._at == len(self._view)

    def u64(self) -> int:
        return int.from_bytes(self._take(_U64_SIZE), "big")

    def data(self) -> memoryview:
        return self._take(self.u64())

    def text(self) -> str:
        try:
            return base64.b64decode(self.data(), validate=True).decode()
        except (binascii.Error, UnicodeDecodeError) as error:
            msg = f"no base64 text before byte {self._at}: {error}"
            raise FormatError(msg) from error

    def _take(self, size: int) -> memoryview:
        if size > len(self._view) - self._at:
            msg = f"{size} bytes announced at byte {self._at}, {len(self._view) - self._at} left"
            raise FormatError(msg)
        self._at += size
        return self._view[self._at - size : self._at]
