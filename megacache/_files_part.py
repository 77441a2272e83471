"""Compiled files to and from the chunks of a bundle."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

from megacache._chunk import Name, Payload, grouped, open_chunk
from megacache._digest import Digest
from megacache._document import Node, pack
from megacache._files import CompiledFile, is_portable
from megacache._manifest import ChunkRef, FileRef, Manifest
from megacache.errors import FormatError, UntrustedError

PART = "files"


def identify(file: CompiledFile) -> FileRef:
    """Name a file by root, path and the digest of its content."""
    digest = Digest.of(file.content)
    return FileRef(root=file.root, path=file.path, digest=digest, size=len(file.content), mode=file.mode)


def payloads(files: Iterable[CompiledFile]) -> Iterator[Payload]:
    """Split files into what will be chunks."""
    for group in grouped(files, lambda file: len(file.content)):
        yield Payload(part=PART, weight=sum(len(file.content) for file in group), build=partial(_build, group))


def declared(manifest: Manifest) -> frozenset[Name]:
    """Give the names of all compiled files that a manifest promises."""
    return frozenset((PART, file.root, file.path, file.size) for file in manifest.files.index)


def strangers(manifest: Manifest) -> Iterator[str]:
    """Describe the files that a manifest names and no compiler writes."""
    return (_described(file.path) for file in manifest.files.index if not is_portable(file.path, file.root))


def unpack(manifest: Manifest, ref: ChunkRef, stored: bytes) -> tuple[CompiledFile, ...]:
    """Verify a chunk, and give the files in it.

    Raises `IntegrityError`, `FormatError` or `UntrustedError`.
    """
    promised = {(file.root, file.path): file for file in manifest.files.index}
    items = Node.unpack(open_chunk(ref, stored), PART).items(most=len(promised))
    return tuple(_checked(item.leading(4), promised) for item in items)


def name(file: CompiledFile) -> Name:
    """Give what a file is compared by."""
    return PART, file.root, file.path, len(file.content)


def _build(files: Sequence[CompiledFile]) -> bytes:
    return pack([[file.root, file.path, file.mode, file.content] for file in files])


def _checked(items: Sequence[Node], promised: Mapping[tuple[str, str], FileRef]) -> CompiledFile:
    root, path, mode, content = items
    file = CompiledFile(root=root.text(), path=path.text(), mode=mode.integer(most=0o777), content=content.data())
    if not is_portable(file.path, file.root):
        raise UntrustedError(_described(file.path), hint="find out who wrote it")
    if promised.get((file.root, file.path)) != identify(file):
        msg = f"compiled file {file.path[:80]!r} of {len(file.content)} bytes is not the one in the manifest"
        raise FormatError(msg, path=root.path)
    return file


def _described(path: str) -> str:
    return f"compiled file {path[:80]!r} is not one that a compiler writes"
