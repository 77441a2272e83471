"""Compiled files become chunks, and come out of them only if nothing is wrong."""

from dataclasses import replace

import pytest

from megacache._bundle import CompiledFile, Payload, file_payloads, pack, pack_chunk, unpack_chunk
from megacache.errors import FormatError, IntegrityError, MegacacheError, UntrustedError
from tests.kit.builders import Bundle, artifact, bundle, compiled_file

MIB = 1 << 20
FILES = (compiled_file("ab/one.so", b"123"), compiled_file("cd/two.json", b"", mode=0o644))


def unpack(made: Bundle) -> tuple[CompiledFile, ...]:
    """Unpack the last chunk of a bundle."""
    chunk = made.chunks[-1]
    return unpack_chunk(made.manifest, chunk.ref, chunk.stored).files


def forged(*items: object) -> Bundle:
    """Make a bundle whose chunk of files is another one than the manifest promises."""
    made = bundle([artifact()], files=FILES)
    chunk = pack_chunk(Payload(part="files", weight=0, build=lambda: pack(list(items))))
    return Bundle(manifest=made.manifest, chunks=(made.chunks[0], chunk))


def test_what_is_packed_is_unpacked() -> None:
    """Verifying and decompressing a chunk gives the files that were packed."""
    assert unpack(bundle([artifact()], files=FILES)) == FILES


def test_chunks_hold_32_mib() -> None:
    """A file larger than a chunk goes alone; the others share chunks of 32 MiB at most."""
    sizes = [10, 40, 10, 10, 10, 10]
    files = [compiled_file(f"ab/{n}.so", bytes(size * MIB)) for n, size in enumerate(sizes)]
    assert [payload.weight // MIB for payload in file_payloads(files)] == [10, 40, 30, 10]


@pytest.mark.parametrize(
    ("items", "error"),
    [
        ([["inductor", "../x.so", 0o755, b""]], UntrustedError),
        ([["inductor", "ab/x.py", 0o755, b""]], UntrustedError),
        ([["inductor", "ab/one.so", 0o755, b"other"]], FormatError),
        ([["inductor", "ab/one.so", 0o644, b"123"]], FormatError),
        ([["triton", "ab/one.so", 0o755, b"123"]], FormatError),
        ([["inductor", "ab/undeclared.so", 0o755, b"123"]], FormatError),
        ([["inductor", "ab/one.so", 0o4755, b"123"]], FormatError),
        ([["inductor", "ab/one.so", 0o755, "123"]], FormatError),
        ([["inductor", "ab/one.so", 0o755]], FormatError),
        ([b"inductor"], FormatError),
    ],
)
def test_other_files_than_promised_are_refused(items: list[object], error: type[MegacacheError]) -> None:
    """A file is only unpacked if the manifest names its root, path, mode and content."""
    with pytest.raises(error):
        unpack(forged(*items))


def test_damaged_chunk_is_refused() -> None:
    """One changed byte of a stored chunk is noticed before it is decompressed."""
    made = bundle([artifact()], files=FILES)
    chunk = replace(made.chunks[1], stored=made.chunks[1].stored[:-1] + b"?")
    with pytest.raises(IntegrityError):
        unpack(Bundle(manifest=made.manifest, chunks=(chunk,)))
