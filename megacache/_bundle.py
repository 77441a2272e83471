"""Artifacts to and from the chunks and the manifest of a bundle."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from graphlib import CycleError, TopologicalSorter

from megacache._blob import Artifact, build_blob, parse_blob
from megacache._chunk import Payload, open_chunk
from megacache._digest import Digest
from megacache._document import pack
from megacache._environment import Environment
from megacache._manifest import MAX_CHUNK_SIZE, ArtifactRef, ChunkRef, Manifest
from megacache._version import __version__
from megacache.errors import FormatError, UntrustedError

Name = tuple[str, str, int]
"""Kind, key and size of an artifact: what can be compared without computing a digest."""

PART = "artifacts"
CHUNK_SIZE = 32 << 20
"""Bytes of raw content a chunk holds at most, unless a single artifact is larger."""

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


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A chunk that has been verified."""

    blob: bytes = field(repr=False)
    """As PyTorch serialises it."""
    names: frozenset[Name]
    """What it holds."""


def identify(artifact: Artifact) -> ArtifactRef:
    """Name an artifact by kind, key and the digest of its content."""
    digest = Digest.of(artifact.content)
    return ArtifactRef(kind=artifact.kind, key=artifact.key, digest=digest, size=len(artifact.content))


def is_portable(artifact: Artifact) -> bool:
    """Tell whether an artifact is of a kind, a key and a size that a reader will accept."""
    pattern = _KEYS.get(artifact.kind)
    return pattern is not None and pattern.fullmatch(artifact.key) is not None and artifact.weight < MAX_CHUNK_SIZE


def bundle_id(artifacts: Iterable[ArtifactRef], parents: Iterable[str]) -> str:
    """Name a bundle after what it holds and what its process knew.

    Contents do not count, for no two compilations give the same bytes: workers that start cold together and compile
    the same model name the same bundle. A worker that had loaded it, and compiled another variant under the same key,
    names another one.
    """
    keys = sorted({(ref.kind, ref.key) for ref in artifacts})
    return Digest.of(pack([keys, sorted(parents)])).hex[:32]


def payloads(artifacts: Iterable[Artifact]) -> Iterator[Payload]:
    """Split artifacts into what will be chunks, each a blob that PyTorch can load on its own."""
    for group in _groups(artifacts):
        weight = sum(artifact.weight for artifact in group)
        yield Payload(part=PART, weight=weight, build=partial(build_blob, group))


def _groups(artifacts: Iterable[Artifact]) -> Iterator[tuple[Artifact, ...]]:
    members: list[Artifact] = []
    size = 0
    for artifact in artifacts:
        if members and size + artifact.weight > CHUNK_SIZE:
            yield tuple(members)
            members, size = [], 0
        members.append(artifact)
        size += artifact.weight
    if members:
        yield tuple(members)


def describe(
    *,
    environment: Environment,
    artifacts: Sequence[ArtifactRef],
    chunks: Iterable[ChunkRef],
    parents: Iterable[str],
    labels: Mapping[str, str],
) -> Manifest:
    """Write the manifest of a new bundle."""
    return Manifest(
        bundle=bundle_id(artifacts, parents),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        producer=f"megacache {__version__}",
        environment=environment,
        parents=tuple(sorted(parents)),
        artifacts=tuple(artifacts),
        chunks=tuple(chunks),
        labels=dict(labels),
    )


def parents_first(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Put bundles after the ones that their processes knew, and in the order of their creation otherwise.

    PyTorch keeps one file a key of the kinds in `REPLACED_KINDS`: the last one that is loaded stays.
    """
    known = {manifest.bundle: manifest for manifest in sorted(manifests, key=lambda m: (m.created, m.bundle))}
    graph = {bundle: [parent for parent in m.parents if parent in known] for bundle, m in known.items()}
    try:
        return [known[bundle] for bundle in TopologicalSorter(graph).static_order()]
    except CycleError:
        return list(known.values())


def artifact_chunks(manifest: Manifest) -> tuple[ChunkRef, ...]:
    """Give the chunks of the part that this version reads."""
    return tuple(chunk for chunk in manifest.chunks if chunk.part == PART)


def unpack_chunk(manifest: Manifest, ref: ChunkRef, stored: bytes) -> Unpacked:
    """Verify a chunk from outside in, and give the blob in it.

    The digest of the stored bytes comes first, then the declared size, the form of the blob, and the kinds, keys and
    sizes in it. Raises `IntegrityError`, `FormatError` or `UntrustedError`.
    """
    raw = open_chunk(ref, stored)
    declared = declared_names(manifest)
    return Unpacked(blob=raw, names=frozenset(_checked_name(artifact, declared) for artifact in parse_blob(raw)))


def declared_names(manifest: Manifest) -> frozenset[Name]:
    """Give the names of all artifacts that a manifest promises."""
    return frozenset((artifact.kind, artifact.key, artifact.size) for artifact in manifest.artifacts)


def _checked_name(artifact: Artifact, declared: frozenset[Name]) -> Name:
    if not is_portable(artifact):
        msg = f"artifact of kind {artifact.kind[:40]!r} with key {artifact.key[:80]!r} is not one that PyTorch writes"
        raise UntrustedError(msg, hint="find out who wrote it")
    name = (artifact.kind, artifact.key, len(artifact.content))
    if name not in declared:
        msg = f"{artifact.kind} artifact {artifact.key[:80]!r} of {len(artifact.content)} bytes is not in the manifest"
        raise FormatError(msg)
    return name
