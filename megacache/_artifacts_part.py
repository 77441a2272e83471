"""Artifacts to and from the chunks of a bundle."""

import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial

from megacache._blob import Artifact, build_blob, parse_blob
from megacache._chunk import Name, Payload, grouped, open_chunk
from megacache._digest import Digest
from megacache._manifest import MAX_CHUNK_SIZE, ArtifactRef, ChunkRef, Manifest
from megacache.errors import FormatError, UntrustedError

PART = "artifacts"

_SAFE_NAME = r"[A-Za-z0-9_-]{1,128}"
_KEYS: Mapping[str, re.Pattern[str]] = {
    "inductor": re.compile(_SAFE_NAME),
    "aot_autograd": re.compile(_SAFE_NAME),
    "autotune": re.compile(rf"{_SAFE_NAME}/{_SAFE_NAME}\.best_config"),
    "pgo": re.compile(r"[\x20-\x7e]{1,512}"),
}

KINDS = frozenset(_KEYS)
"""The kinds that travel. `precompile` does not: it drops guards, and can return another function's result."""

REPLACED_KINDS = frozenset({"autotune", "pgo"})
"""Kinds of which PyTorch keeps one file a key; of the others, each artifact is a file of its own."""


def identify(artifact: Artifact) -> ArtifactRef:
    """Name an artifact by kind, key and the digest of its content."""
    digest = Digest.of(artifact.content)
    return ArtifactRef(kind=artifact.kind, key=artifact.key, digest=digest, size=len(artifact.content))


def is_portable(artifact: Artifact) -> bool:
    """Tell whether an artifact is of a kind, a key and a size that a reader will accept."""
    pattern = _KEYS.get(artifact.kind)
    return pattern is not None and pattern.fullmatch(artifact.key) is not None and artifact.weight < MAX_CHUNK_SIZE


def payloads(artifacts: Iterable[Artifact]) -> Iterator[Payload]:
    """Split artifacts into what will be chunks, each a blob that PyTorch can load on its own."""
    for group in grouped(artifacts, lambda artifact: artifact.weight):
        weight = sum(artifact.weight for artifact in group)
        yield Payload(part=PART, weight=weight, build=partial(build_blob, group))


def declared(manifest: Manifest) -> frozenset[Name]:
    """Give the names of all artifacts that a manifest promises."""
    return frozenset((PART, artifact.kind, artifact.key, artifact.size) for artifact in manifest.artifacts)


def unpack(manifest: Manifest, ref: ChunkRef, stored: bytes) -> tuple[bytes, frozenset[Name]]:
    """Verify a chunk, and give the blob in it, as PyTorch serialises it, and the names of what it holds.

    Raises `IntegrityError`, `FormatError` or `UntrustedError`.
    """
    blob = open_chunk(ref, stored)
    promised = declared(manifest)
    return blob, frozenset(_checked_name(artifact, promised) for artifact in parse_blob(blob))


def _checked_name(artifact: Artifact, promised: frozenset[Name]) -> Name:
    if not is_portable(artifact):
        msg = f"artifact of kind {artifact.kind[:40]!r} with key {artifact.key[:80]!r} is not one that PyTorch writes"
        raise UntrustedError(msg, hint="find out who wrote it")
    name = (PART, artifact.kind, artifact.key, len(artifact.content))
    if name not in promised:
        msg = f"{artifact.kind} artifact {artifact.key[:80]!r} of {len(artifact.content)} bytes is not in the manifest"
        raise FormatError(msg)
    return name
