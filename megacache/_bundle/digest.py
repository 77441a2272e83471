"""The digest of bytes, as a value."""

import hashlib
import re
from dataclasses import dataclass
from typing import Self

from megacache.errors import FormatError

_TEXT = re.compile(r"sha256:([0-9a-f]{64})")


@dataclass(frozen=True, slots=True, order=True)
class Digest:
    """A SHA-256 digest; `str(digest)` is `sha256:<64 hex digits>`."""

    hex: str
    """64 lower-case hex digits."""

    @classmethod
    def of(cls, data: bytes | memoryview) -> Self:
        """Compute the digest of some bytes."""
        return cls(hashlib.sha256(data).hexdigest())

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read `sha256:<hex>`; raise `FormatError` for anything else."""
        match = _TEXT.fullmatch(text)
        if match is None:
            msg = f"not a sha256 digest: {text[:80]!r}"
            raise FormatError(msg)
        return cls(match[1])

    def __str__(self) -> str:
        return f"sha256:{self.hex}"
