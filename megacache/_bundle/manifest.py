"""The manifest of a bundle: its values, and their msgpack form inside an envelope."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from megacache._bundle.digest import Digest
from megacache._bundle.document import Node, pack_document
from megacache._bundle.envelope import Envelope, Signature, open_envelope
from megacache._bundle.environment import Environment
from megacache._runtime import MAX_SHORT_TEXT, is_short_text
from megacache.errors import FormatError, SettingsError

FORMAT = (1, 4)
"""Major and minor version. A reader refuses another major, and ignores fields of a later minor."""
MAX_MANIFEST_SIZE = 64 << 20
"""Bytes; a larger object at a manifest's name is not read."""
MAX_CHUNK_SIZE = 2 << 30
"""Bytes of one chunk, raw or stored; only an artifact that is large by itself makes one of more than 32 MiB."""

MAX_CHUNKS = 1 << 14
"""In one bundle."""

_MAX_SIZE = 1 << 50
_MAX_FACTS = 256
_MAX_LABELS = 256
_MAX_PROBES = 1_024
_MAX_OPERATORS = 4_096

_MAX_OWN_LABELS = 64

_TARGET = "cpu_target"
"""The fact that is written beside the others: readers of minor versions before 4 would refuse files for its sake."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRef:
    """An artifact as the manifest names it."""

    kind: str
    key: str
    digest: Digest
    size: int
    """Bytes of content."""
    guard: str | None = field(default=None, compare=False)
    """Digest of the condition under which PyTorch uses it; empty if there is none, None if that is not known."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRef:
    """A compiled file as the manifest names it."""

    root: str
    """Name of the folder that it lies under: `inductor`, `triton`, or one that an integration registers."""
    path: str
    """Under that folder, with `/` between names."""
    digest: Digest
    size: int
    """Bytes of content."""
    mode: int
    """Permission bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FilesPart:
    """What a manifest says of the compiled files in its bundle."""

    guard: Mapping[str, str] = field(default_factory=dict)
    """Facts that must agree, beside those of the environment, before a file is restored."""
    probes: tuple[str, ...] = ()
    """Trials of the C++ compiler that went well, as Inductor's ISA picker makes them."""
    index: tuple[FileRef, ...] = ()
    missing: tuple[tuple[str, str], ...] = ()
    """Root and path of what the graphs need as well, and what was gone when the bundle was published."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkRef:
    """A chunk as the manifest names it."""

    part: str
    """`artifacts`, `files` or `explain`; a reader ignores parts that it does not know."""
    digest: Digest
    """Of the stored bytes; also the chunk's name."""
    stored_size: int
    raw_size: int
    codec: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Manifest:
    """The document that describes a bundle."""

    bundle: str
    """Id: 32 hex digits."""
    created: str
    """UTC, ISO 8601."""
    producer: str
    """`megacache <version>`"""
    environment: Environment
    parents: tuple[str, ...]
    """Ids of the bundles that the process knew when it compiled what is in this one."""
    artifacts: tuple[ArtifactRef, ...]
    chunks: tuple[ChunkRef, ...]
    files: FilesPart = field(default_factory=FilesPart)
    labels: Mapping[str, str] = field(default_factory=dict)
    """The publisher's own words."""
    operators: Mapping[str, str] = field(default_factory=dict)
    """Digests of the definitions of the custom operators that the artifacts call, by name: conditions of loading."""
    minor: int = field(default=FORMAT[1], compare=False)
    """Minor version of the format in which it was written."""


def seal(manifest: Manifest, sign: Callable[[bytes], Signature] | None = None) -> bytes:
    """Write a manifest in an envelope, signed if asked for; raise `FormatError` if no reader would accept it."""
    payload = pack_document(_document(manifest), "manifest")
    if len(payload) > MAX_MANIFEST_SIZE // 2:  # the rest is left to signatures
        msg = f"{len(payload)} bytes, at most {MAX_MANIFEST_SIZE // 2} are written"
        raise FormatError(msg, path="manifest")
    # What no reader would accept must not be published.
    parse_manifest(payload)
    return Envelope(payload=payload, signatures=(sign(payload),) if sign else ()).pack()


def unseal(data: bytes) -> Manifest:
    """Read an envelope and the manifest in it, whoever has signed it."""
    return parse_manifest(open_envelope(data).payload)


def parse_manifest(payload: bytes) -> Manifest:
    """Read a manifest; raise `FormatError` where it is not what it should be."""
    return _parse(Node.unpack(payload, "manifest"))


def _document(manifest: Manifest) -> Mapping[str, object]:
    return {
        "format": list(FORMAT),
        "bundle": manifest.bundle,
        "created": manifest.created,
        "producer": manifest.producer,
        "environment": dict(manifest.environment.facts),
        "recorded": dict(manifest.environment.recorded),
        "parents": list(manifest.parents),
        "artifacts": [
            [a.kind, a.key, str(a.digest), a.size, *([] if a.guard is None else [a.guard])] for a in manifest.artifacts
        ],
        "files": {
            "guard": {name: value for name, value in manifest.files.guard.items() if name != _TARGET},
            _TARGET: manifest.files.guard.get(_TARGET, ""),
            "probes": list(manifest.files.probes),
            "index": [[f.root, f.path, str(f.digest), f.size, f.mode] for f in manifest.files.index],
            "missing": [list(names) for names in manifest.files.missing],
        },
        "chunks": [[c.part, str(c.digest), c.stored_size, c.raw_size, c.codec] for c in manifest.chunks],
        "labels": dict(manifest.labels),
        "operators": dict(manifest.operators),
    }


def _parse(node: Node) -> Manifest:
    return Manifest(
        minor=node.field("format").check_major(FORMAT[0]),
        bundle=node.field("bundle").text(),
        created=node.field("created").text(),
        producer=node.field("producer").text(),
        environment=Environment(
            facts=node.field("environment").texts(most=_MAX_FACTS), recorded=node.field("recorded").texts()
        ),
        parents=tuple(parent.text() for parent in node.field("parents").items()),
        artifacts=tuple(_parse_artifact(item) for item in node.field("artifacts").items()),
        chunks=tuple(_parse_chunk(item.leading(5)) for item in node.field("chunks").items(most=MAX_CHUNKS)),
        files=_parse_files(node.optional("files")),
        labels=node.field("labels").texts(most=_MAX_LABELS),
        operators=_parse_operators(node.optional("operators")),
    )


def _parse_operators(node: Node | None) -> Mapping[str, str]:
    return {} if node is None else node.texts(most=_MAX_OPERATORS)  # none in minor versions before 3


def _parse_artifact(node: Node) -> ArtifactRef:
    node.leading(4)
    kind, key, digest, size, *later = node.items()
    return ArtifactRef(
        kind=kind.text(),
        key=key.text(),
        digest=_parse_digest(digest),
        size=size.integer(most=_MAX_SIZE),
        guard=later[0].text() if later else None,  # none in minor versions before 3
    )


def _parse_files(node: Node | None) -> FilesPart:
    if node is None:  # minor version 0 has no such part
        return FilesPart()
    return FilesPart(
        guard=dict(_parse_guard(node)),
        probes=tuple(probe.text() for probe in node.field("probes").items(most=_MAX_PROBES)),
        index=tuple(_parse_file(item.leading(5)) for item in node.field("index").items()),
        missing=tuple(_parse_missing(node.optional("missing"))),
    )


def _parse_guard(node: Node) -> Iterator[tuple[str, str]]:
    yield from node.field("guard").texts(most=_MAX_FACTS).items()
    target = node.optional(_TARGET)
    if target is not None and (text := target.text()):  # none in minor versions before 4
        yield _TARGET, text


def _parse_missing(node: Node | None) -> Iterator[tuple[str, str]]:
    for item in () if node is None else node.items():  # as in minor version 1
        root, path = item.leading(2)
        yield root.text(), path.text()


def _parse_file(items: Sequence[Node]) -> FileRef:
    root, path, digest, size, mode = items
    return FileRef(
        root=root.text(),
        path=path.text(),
        digest=_parse_digest(digest),
        size=size.integer(most=MAX_CHUNK_SIZE),
        mode=mode.integer(most=0o777),
    )


def _parse_chunk(items: Sequence[Node]) -> ChunkRef:
    part, digest, stored_size, raw_size, codec = items
    return ChunkRef(
        part=part.text(),
        digest=_parse_digest(digest),
        stored_size=stored_size.integer(most=MAX_CHUNK_SIZE),
        raw_size=raw_size.integer(most=MAX_CHUNK_SIZE),
        codec=codec.text(),
    )


def _parse_digest(node: Node) -> Digest:
    try:
        return Digest.parse(node.text())
    except FormatError as error:
        raise FormatError(str(error), path=node.path) from error


def checked_labels(labels: Mapping[str, str]) -> Mapping[str, str]:
    """Refuse labels that a manifest would not take; raises `SettingsError`."""
    if len(labels) > _MAX_OWN_LABELS or not all(is_short_text(word) for pair in labels.items() for word in pair):
        msg = f"labels must be at most {_MAX_OWN_LABELS} pairs of texts, each of at most {MAX_SHORT_TEXT:,} characters"
        raise SettingsError(msg)
    return labels
