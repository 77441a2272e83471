"""Compiled files: which of them may travel, and how they become chunks."""

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

from megacache._bundle.chunk import Name, Payload, grouped, open_chunk
from megacache._bundle.digest import Digest
from megacache._bundle.document import Node, pack
from megacache._bundle.manifest import ChunkRef, FileRef, Manifest
from megacache.errors import FormatError, UntrustedError

# The table is here, and not with the program: bundles are verified also where the program does not run.
PROGRAM_SUFFIXES: Mapping[str, frozenset[str]] = {
    "inductor": frozenset(),
    "triton": frozenset({".source"}),  # without it, Triton compiles a kernel again, from 3.7 on
    "vllm": frozenset({"", ".py", ".best_config"}),
}
"""Suffixes of the files that travel under one root, beside those of compiled files anywhere.

The empty suffix is a name without one. Under a root that is not here, names have any suffix: it is that of another
compiler's cache, which a process has named, or one that this megacache does not know and never restores.
"""

PROGRAMS = frozenset({"vllm"})
"""Roots of programs that guard their files by settings of their own, which nobody else can tell."""

_SUFFIXES = frozenset({".so", ".o", ".cubin", ".hsaco", ".json", ".ptx", ".amdgcn", ".ttir", ".ttgir", ".llir"})
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,254}"
_MAX_PATH = 1_000
_PATH = re.compile(rf"(?:{_NAME}/){{0,7}}{_NAME}")

FILES_PART = "files"


@dataclass(frozen=True, slots=True, kw_only=True)
class CompiledFile:
    """A file that a compiler left in one of its cache folders."""

    root: str
    """As in `FileRef`."""
    path: str
    """As in `FileRef`."""
    mode: int
    content: bytes = field(repr=False)


def is_portable_file(path: str, root: str) -> bool:
    """Tell whether a path stays under its root and names what a compiler leaves there: nothing hidden.

    Sources do not travel, except under a root that needs them.
    """
    if len(path) > _MAX_PATH or _PATH.fullmatch(path) is None:
        return False
    return root not in PROGRAM_SUFFIXES or Path(path).suffix in _SUFFIXES | PROGRAM_SUFFIXES[root]


def identify_file(file: CompiledFile) -> FileRef:
    """Name a file by root, path and the digest of its content."""
    digest = Digest.of(file.content)
    return FileRef(root=file.root, path=file.path, digest=digest, size=len(file.content), mode=file.mode)


def file_payloads(files: Iterable[CompiledFile]) -> Iterator[Payload]:
    """Split files into what will be chunks."""
    for group in grouped(files, lambda file: len(file.content)):
        yield Payload(part=FILES_PART, weight=sum(len(file.content) for file in group), build=partial(_build, group))


def declared_files(manifest: Manifest) -> frozenset[Name]:
    """Give the names of all compiled files that a manifest promises."""
    return frozenset((FILES_PART, file.root, file.path, file.digest) for file in manifest.files.index)


def strange_files(manifest: Manifest) -> Iterator[str]:
    """Describe the files that a manifest names and no compiler writes."""
    return (_described(file.path) for file in manifest.files.index if not is_portable_file(file.path, file.root))


def unpack_files(manifest: Manifest, ref: ChunkRef, stored: bytes) -> tuple[CompiledFile, ...]:
    """Verify a chunk, and give the files in it.

    Raises `IntegrityError`, `FormatError` or `UntrustedError`.
    """
    promised = {(file.root, file.path): file for file in manifest.files.index}
    items = Node.unpack(open_chunk(ref, stored), FILES_PART).items(most=len(promised))
    return tuple(_checked(item.leading(4), promised) for item in items)


def name_of_file(file: CompiledFile) -> Name:
    """Give what a file is compared by."""
    return FILES_PART, file.root, file.path, identify_file(file).digest


def _build(files: Sequence[CompiledFile]) -> bytes:
    return pack([[file.root, file.path, file.mode, file.content] for file in files])


def _checked(items: Sequence[Node], promised: Mapping[tuple[str, str], FileRef]) -> CompiledFile:
    root, path, mode, content = items
    file = CompiledFile(root=root.text(), path=path.text(), mode=mode.integer(most=0o777), content=content.data())
    if not is_portable_file(file.path, file.root):
        raise UntrustedError(_described(file.path), hint="find out who wrote it")
    if promised.get((file.root, file.path)) != identify_file(file):
        msg = f"compiled file {file.path[:80]!r} of {len(file.content)} bytes is not the one in the manifest"
        raise FormatError(msg, path=root.path)
    return file


def _described(path: str) -> str:
    return f"compiled file {path[:80]!r} is not one that a compiler writes"
