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
    # It becomes part of the name of one file, `code_state_<key>.pkl.lock` at the longest, without its slashes.
    "pgo": re.compile(r"[\x20-\x7e]{1,235}"),
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
    return is_known(artifact.kind, artifact.key) and artifact.weight < MAX_CHUNK_SIZE


def is_known(kind: str, key: str) -> bool:
    """Tell whether PyTorch writes artifacts of this kind under keys of this form, which stay in its cache folder."""
    pattern = _KEYS.get(kind)
    return pattern is not None and pattern.fullmatch(key) is not None


def strangers(manifest: Manifest) -> Iterator[str]:
    """Describe the artifacts that a manifest names and no PyTorch writes."""
    return (_described(ref.kind, ref.key) for ref in manifest.artifacts if not is_known(ref.kind, ref.key))


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
    return blob, frozenset(_checked_names(blob, manifest))


def _checked_names(blob: bytes, manifest: Manifest) -> Iterator[Name]:
    promised, left = declared(manifest), len(manifest.artifacts)
    for artifact in parse_blob(blob):
        left -= 1
        if left < 0:
            raise FormatError(f"a chunk holds more than the {len(manifest.artifacts)} artifacts of the manifest")
        yield _checked_name(artifact, promised)


def _checked_name(artifact: Artifact, promised: frozenset[Name]) -> Name:
    if not is_portable(artifact):
        raise UntrustedError(_described(artifact.kind, artifact.key), hint="find out who wrote it")
    name = (PART, artifact.kind, artifact.key, len(artifact.content))
    if name not in promised:
        msg = f"{artifact.kind} artifact {artifact.key[:80]!r} of {len(artifact.content)} bytes is not in the manifest"
        raise FormatError(msg)
    return name


def _described(kind: str, key: str) -> str:
    return f"artifact of kind {kind[:40]!r} with key {key[:80]!r} is not one that PyTorch writes"
