"""Artifacts: PyTorch's portable blob, read and written without PyTorch, and how artifacts become chunks.

The layout of a blob is that of `torch.utils._appending_byte_serializer` and `torch.compiler._cache`, equal in 2.8 to
2.15: a big-endian CRC-32 of the rest, a 64-bit version, then for each group the kind, a count, and as many pairs of key
and content. Bytes are preceded by their 64-bit length; strings are base64 bytes. PyTorch's own reader keeps only the
last group of each kind, so a blob is always written with one group per kind.
"""

import base64
import binascii
import re
import zlib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from itertools import groupby
from operator import attrgetter

from megacache._bundle.chunk import Name, Payload, grouped, open_chunk
from megacache._bundle.digest import Digest
from megacache._bundle.manifest import MAX_CHUNK_SIZE, ArtifactRef, ChunkRef, Manifest
from megacache.errors import FormatError, IntegrityError, UntrustedError

_VERSION = 1
_CRC_SIZE = 4
_U64_SIZE = 8

ARTIFACTS_PART = "artifacts"

# PyTorch joins keys to paths as they are: one with `..` in it would lead out of the cache folder.
_SAFE_NAME = r"[A-Za-z0-9_-]{1,128}"
_KEYS: Mapping[str, re.Pattern[str]] = {
    "inductor": re.compile(_SAFE_NAME),
    "aot_autograd": re.compile(_SAFE_NAME),
    "autotune": re.compile(rf"{_SAFE_NAME}/{_SAFE_NAME}\.best_config"),
    # It becomes part of the name of one file, `code_state_<key>.pkl.lock` at the longest, without its slashes.
    "pgo": re.compile(r"[\x20-\x7e]{1,235}"),
}

KINDS = frozenset(_KEYS)
"""The kinds that travel. `precompile` does not: it drops guards, and can return another function's result."""

REPLACED_KINDS = frozenset({"autotune", "pgo"})
"""Kinds of which PyTorch keeps one file a key; of the other kinds, each artifact has its own file."""


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
        # A key is written in base64, which takes a third more; the rest is for lengths and the kind.
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
    pieces = list(_pieces(artifacts))
    crc = 0
    for piece in pieces:
        crc = zlib.crc32(piece, crc)
    # Joined at once: a blob that grew would be copied, and a chunk is large.
    return b"".join([crc.to_bytes(_CRC_SIZE, "big"), *pieces])


def _pieces(artifacts: Iterable[Artifact]) -> Iterator[bytes | memoryview]:
    yield _u64(_VERSION)
    for kind, group in groupby(sorted(artifacts, key=attrgetter("kind", "key")), key=attrgetter("kind")):
        members = list(group)
        yield from _sized(base64.b64encode(kind.encode()))
        yield _u64(len(members))
        for artifact in members:
            yield from _sized(base64.b64encode(artifact.key.encode()))
            yield from _sized(artifact.content)


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


def _sized(data: bytes | memoryview) -> Iterator[bytes | memoryview]:
    yield _u64(len(data))
    yield data


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


def identify_artifact(artifact: Artifact) -> ArtifactRef:
    """Name an artifact by kind, key and the digest of its content."""
    digest = Digest.of(artifact.content)
    return ArtifactRef(kind=artifact.kind, key=artifact.key, digest=digest, size=len(artifact.content))


def variant_of(ref: ArtifactRef) -> tuple[str, str, str]:
    """Give what two artifacts have in common that serve in each other's place: kind, key and guard.

    PyTorch compiles a graph again, under the same key, for sizes that the guard of the first one excludes. An artifact
    whose guard is not known serves only in its own place.
    """
    if ref.kind in REPLACED_KINDS:
        return ref.kind, ref.key, ""
    return ref.kind, ref.key, str(ref.digest) if ref.guard is None else ref.guard


def is_portable_artifact(artifact: Artifact) -> bool:
    """Tell whether an artifact is of a kind, a key and a size that a reader will accept."""
    return is_known_artifact(artifact.kind, artifact.key) and artifact.weight < MAX_CHUNK_SIZE


def is_known_artifact(kind: str, key: str) -> bool:
    """Tell whether PyTorch writes artifacts of this kind under keys of this form, which stay in its cache folder."""
    pattern = _KEYS.get(kind)
    return pattern is not None and pattern.fullmatch(key) is not None


def strange_artifacts(manifest: Manifest) -> Iterator[str]:
    """Describe the artifacts that a manifest names and no PyTorch writes."""
    return (_described(ref.kind, ref.key) for ref in manifest.artifacts if not is_known_artifact(ref.kind, ref.key))


def artifact_payloads(artifacts: Iterable[Artifact]) -> Iterator[Payload]:
    """Split artifacts into what will be chunks, each a blob that PyTorch can load on its own."""
    for group in grouped(artifacts, lambda artifact: artifact.weight):
        weight = sum(artifact.weight for artifact in group)
        yield Payload(part=ARTIFACTS_PART, weight=weight, build=partial(build_blob, group))


def declared_artifacts(manifest: Manifest) -> frozenset[Name]:
    """Give the names of all artifacts that a manifest promises."""
    return frozenset(map(_name_of, manifest.artifacts))


def name_of_artifact(artifact: Artifact) -> Name:
    """Give what an artifact is compared by."""
    return _name_of(identify_artifact(artifact))


def _name_of(ref: ArtifactRef) -> Name:
    return ARTIFACTS_PART, ref.kind, ref.key, ref.digest


def unpack_artifacts(manifest: Manifest, ref: ChunkRef, stored: bytes) -> tuple[bytes, frozenset[Name]]:
    """Verify a chunk, and give the blob in it, as PyTorch serialises it, and the names of what it holds.

    Raises `IntegrityError`, `FormatError` or `UntrustedError`.
    """
    blob = open_chunk(ref, stored)
    return blob, frozenset(_checked_names(blob, manifest))


def _checked_names(blob: bytes, manifest: Manifest) -> Iterator[Name]:
    promised, left = frozenset(manifest.artifacts), len(manifest.artifacts)
    for artifact in parse_blob(blob):
        left -= 1
        if left < 0:
            raise FormatError(f"a chunk holds more than the {len(manifest.artifacts)} artifacts of the manifest")
        yield _checked_name(artifact, promised)


def _checked_name(artifact: Artifact, promised: frozenset[ArtifactRef]) -> Name:
    if not is_portable_artifact(artifact):
        raise UntrustedError(_described(artifact.kind, artifact.key), hint="find out who wrote it")
    ref = identify_artifact(artifact)
    if ref not in promised:
        msg = f"{ref.kind} artifact {ref.key[:80]!r} of {ref.size} bytes is not one of the manifest"
        raise FormatError(msg)
    return _name_of(ref)


def _described(kind: str, key: str) -> str:
    return f"artifact of kind {kind[:40]!r} with key {key[:80]!r} is not one that PyTorch writes"
