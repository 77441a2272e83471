"""What a bundle is: its name, its manifest, its place among others, and the content of its chunks."""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from graphlib import CycleError, TopologicalSorter
from itertools import chain

from megacache._bundle.artifacts import (
    ARTIFACTS_PART,
    declared_artifacts,
    strange_artifacts,
    unpack_artifacts,
    variant_of,
)
from megacache._bundle.chunk import Name
from megacache._bundle.digest import Digest
from megacache._bundle.document import pack
from megacache._bundle.environment import Environment
from megacache._bundle.files import FILES_PART, CompiledFile, declared_files, name_of_file, strange_files, unpack_files
from megacache._bundle.manifest import ArtifactRef, ChunkRef, FilesPart, Manifest
from megacache._version import __version__
from megacache.errors import UntrustedError

NO_FILES = FilesPart()
NO_OPERATORS: Mapping[str, str] = {}


@dataclass(frozen=True, slots=True, kw_only=True)
class Unpacked:
    """A chunk that has been verified."""

    ref: ChunkRef
    names: frozenset[Name]
    """What it holds."""
    blob: bytes = field(default=b"", repr=False)
    """Its artifacts, as PyTorch serialises them, if it holds artifacts."""
    files: tuple[CompiledFile, ...] = ()
    """Its compiled files, if it holds any."""


def bundle_id(
    artifacts: Iterable[ArtifactRef],
    parents: Iterable[str],
    files: FilesPart = NO_FILES,
    operators: Mapping[str, str] = NO_OPERATORS,
    *,
    for_any_cpu: bool = False,
) -> str:
    """Name a bundle after what it holds and what its process knew.

    Contents do not count, because no two compilations give the same bytes: workers that start cold together and compile
    the same model name the same bundle. A worker that compiled another variant under the same key, or had loaded the
    bundle, names another one. What serves beside any CPU lies apart, and shares no name with what does not.
    """
    variants = sorted({variant_of(ref) for ref in artifacts})
    paths = sorted({(file.root, file.path) for file in files.index})
    conditions: list[object] = [sorted(operators.items())] if operators else []
    conditions += ["for any cpu"] if for_any_cpu else []
    return Digest.of(pack([variants, sorted(parents), paths, sorted(files.guard.items()), *conditions])).hex[:32]


def describe(
    *,
    environment: Environment,
    artifacts: Sequence[ArtifactRef],
    chunks: Iterable[ChunkRef],
    parents: Iterable[str],
    labels: Mapping[str, str],
    files: FilesPart = NO_FILES,
    operators: Mapping[str, str] = NO_OPERATORS,
) -> Manifest:
    """Write the manifest of a new bundle."""
    return Manifest(
        bundle=bundle_id(artifacts, parents, files, operators, for_any_cpu=environment.is_for_any_cpu),
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        producer=f"megacache {__version__}",
        environment=environment,
        parents=tuple(sorted(parents)),
        artifacts=tuple(artifacts),
        files=files,
        chunks=tuple(chunks),
        labels=dict(labels),
        operators=dict(operators),
    )


def merged(sources: Sequence[Manifest], unusable: Container[str] = ()) -> Manifest:
    """Write the manifest, but for its chunks, of the bundle that takes the place of others, given parents first.

    It holds each variant and each file once, the last one of it, and what else the sources have in common. Whoever
    merges the same bundles names the same one. A name that is taken by a bundle nobody can use is avoided by naming
    that bundle as a parent.
    """
    newest = max(sources, key=lambda one: (one.created, one.bundle))
    artifacts = {variant_of(ref): ref for one in sources for ref in one.artifacts}.values()
    index = {(file.root, file.path): file for one in sources for file in one.files.index}
    missing = {names for one in sources for names in one.files.missing} - index.keys()
    files = FilesPart(
        guard=next((one.files.guard for one in sources if one.files.index), {}),
        probes=tuple(sorted({probe for one in sources for probe in one.files.probes})),
        index=tuple(file for _, file in sorted(index.items())),
        missing=tuple(sorted(missing)),
    )
    parents = {one.bundle for one in sources}
    shared = newest.environment.is_for_any_cpu
    while (bundle := bundle_id(artifacts, parents, files, newest.operators, for_any_cpu=shared)) in unusable:
        parents.add(bundle)
    return replace(
        newest,
        bundle=bundle,
        producer=f"megacache {__version__}",
        parents=tuple(sorted(parents)),
        artifacts=tuple(sorted(artifacts, key=lambda ref: (ref.kind, ref.key, ref.digest))),
        files=files,
        chunks=(),
        labels=dict(set.intersection(*(set(one.labels.items()) for one in sources))),
    )


def parents_first(manifests: Iterable[Manifest]) -> list[Manifest]:
    """Put bundles after the ones that their processes knew, and in the order of their creation otherwise.

    PyTorch keeps one file a key of some kinds: the last one that is loaded stays.
    """
    # By creation and id, so that all readers load in the same order.
    known = {manifest.bundle: manifest for manifest in sorted(manifests, key=lambda m: (m.created, m.bundle))}
    graph = {bundle: [parent for parent in m.parents if parent in known] for bundle, m in known.items()}
    try:
        return [known[bundle] for bundle in TopologicalSorter(graph).static_order()]
    except CycleError:  # no writer makes one; the order of creation is as good as any
        return list(known.values())


def chunks_of(manifest: Manifest, *, files: bool) -> tuple[ChunkRef, ...]:
    """Give the chunks to be read: those of artifacts, and of compiled files if they are wanted."""
    parts = {ARTIFACTS_PART, *([FILES_PART] if files else [])}
    return tuple(chunk for chunk in manifest.chunks if chunk.part in parts)


def declared_names(manifest: Manifest, *, files: bool) -> frozenset[Name]:
    """Give the names of all that a manifest promises to be in those chunks."""
    return declared_artifacts(manifest) | (declared_files(manifest) if files else frozenset())


def refusal(manifest: Manifest) -> UntrustedError | None:
    """Give the fault of a manifest that names what neither PyTorch nor a compiler writes: no chunk is fetched."""
    found = next(chain(strange_artifacts(manifest), strange_files(manifest)), None)
    return None if found is None else UntrustedError(found, hint="find out who wrote it")


def unpack_chunk(manifest: Manifest, ref: ChunkRef, stored: bytes) -> Unpacked:
    """Verify a chunk from outside in, and give what is in it.

    The digest of the stored bytes comes first, then the declared size, the form of the content, and the name and digest
    of everything in it. Raises `IntegrityError`, `FormatError` or `UntrustedError`.
    """
    if ref.part == FILES_PART:
        files = unpack_files(manifest, ref, stored)
        return Unpacked(ref=ref, files=files, names=frozenset(map(name_of_file, files)))
    blob, names = unpack_artifacts(manifest, ref, stored)
    return Unpacked(ref=ref, blob=blob, names=names)
