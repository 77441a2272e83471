"""Ways in which a published cache can be wrong, each applied to a copy of a good one on disk."""

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path

from megacache._bundle import (
    Artifact,
    CompiledFile,
    Manifest,
    Payload,
    build_blob,
    bundle_id,
    chunks_of,
    file_payloads,
    identify_artifact,
    identify_file,
    pack,
    pack_chunk,
    parse_blob,
    seal,
    unpack_chunk,
    unseal,
)
from megacache._bundle.envelope import PAYLOAD_TYPE


def manifest_path(store: Path) -> Path:
    """Find the one manifest."""
    (path,) = store.glob("*/*/bundles/*.msgpack")
    return path


def chunk_path(store: Path, part: str = "artifacts") -> Path:
    """Find the one chunk of a part."""
    manifest = unseal(manifest_path(store).read_bytes())
    (ref,) = (chunk for chunk in manifest.chunks if chunk.part == part)
    return manifest_path(store).parent.parent / "chunks" / f"{ref.digest.hex}.zst"


def flip_bit(path: Path) -> None:
    """Change one bit in the middle of a file."""
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x10
    path.write_bytes(data)


def truncate(path: Path) -> None:
    """Cut a file in half."""
    data = path.read_bytes()
    path.write_bytes(data[: len(data) // 2])


def rewrite(store: Path, change: Callable[[Manifest], Manifest]) -> None:
    """Replace the manifest by a changed one under the same name."""
    path = manifest_path(store)
    path.write_bytes(seal(change(unseal(path.read_bytes()))))


def another_environment(**facts: str) -> Callable[[Path], None]:
    """Say in the manifest that it was published elsewhere."""

    def damage(store: Path) -> None:
        rewrite(
            store,
            lambda m: dataclasses.replace(
                m, environment=dataclasses.replace(m.environment, facts={**m.environment.facts, **facts})
            ),
        )

    return damage


def future_major(store: Path) -> None:
    """Write a manifest as a later format would."""
    payload = pack({"format": [2, 0], "bundle": manifest_path(store).stem, "all": "new"})
    envelope = {"payloadType": PAYLOAD_TYPE, "payload": payload, "signatures": []}
    manifest_path(store).write_bytes(pack(envelope))


def add_bundle(
    store: Path, *artifacts: Artifact, files: Sequence[CompiledFile] = (), raw_size: int | None = None
) -> str:
    """Publish artifacts and files beside what is there, without any of the checks of a publication."""
    manifest = unseal(manifest_path(store).read_bytes())
    payload = Payload(part="artifacts", weight=0, build=lambda: build_blob(artifacts))
    chunks = [pack_chunk(one) for one in (payload, *file_payloads(files))]
    declared = [
        chunk.ref if raw_size is None else dataclasses.replace(chunk.ref, raw_size=raw_size) for chunk in chunks
    ]
    refs = tuple(identify_artifact(artifact) for artifact in artifacts)
    part = dataclasses.replace(manifest.files, index=tuple(map(identify_file, files)))
    forged = dataclasses.replace(
        manifest, bundle=bundle_id(refs, (), part), artifacts=refs, files=part, chunks=tuple(declared), parents=()
    )
    folder = manifest_path(store).parent
    for chunk in chunks:
        (folder.parent / "chunks" / f"{chunk.ref.digest.hex}.zst").write_bytes(chunk.stored)
    (folder / f"{forged.bundle}.msgpack").write_bytes(seal(forged))
    return forged.bundle


def contents(store: Path) -> tuple[list[Artifact], list[CompiledFile]]:
    """Unpack the artifacts and the compiled files of the one bundle."""
    manifest = unseal(manifest_path(store).read_bytes())
    artifacts: list[Artifact] = []
    files: list[CompiledFile] = []
    for ref in chunks_of(manifest, files=True):
        stored = (manifest_path(store).parent.parent / "chunks" / f"{ref.digest.hex}.zst").read_bytes()
        unpacked = unpack_chunk(manifest, ref, stored)
        artifacts += parse_blob(unpacked.blob) if unpacked.blob else ()
        files += unpacked.files
    return artifacts, files


def replace_kernels(store: Path, content: bytes) -> str:
    """Put a bundle in the place of the sound one, whose libraries of kernels are other bytes, with their digest."""
    artifacts, files = contents(store)
    changed = [dataclasses.replace(file, content=content) if file.path.endswith(".main.so") else file for file in files]
    assert changed != files
    sound = manifest_path(store)
    bundle = add_bundle(store, *artifacts, files=changed)
    if sound.stem != bundle:
        sound.unlink()
    return bundle


def lying_size(store: Path) -> None:
    """Declare fewer bytes than the chunk decompresses to."""
    rewrite(
        store,
        lambda m: dataclasses.replace(m, chunks=tuple(dataclasses.replace(c, raw_size=100) for c in m.chunks)),
    )


def swapped_manifest(store: Path) -> None:
    """Put the manifest under the name of another bundle."""
    path = manifest_path(store)
    path.rename(path.with_name(f"{'0' * 32}.msgpack"))


DAMAGES: dict[str, tuple[Callable[[Path], object], str, str, str]] = {
    "truncated chunk": (lambda s: truncate(chunk_path(s)), "unavailable", "IntegrityError", "is damaged"),
    "flipped chunk": (lambda s: flip_bit(chunk_path(s)), "unavailable", "IntegrityError", "is damaged"),
    "flipped files": (lambda s: flip_bit(chunk_path(s, "files")), "unavailable", "IntegrityError", "is damaged"),
    "files gone": (lambda s: chunk_path(s, "files").unlink(), "miss", "", "reading cpu-"),
    "truncated manifest": (lambda s: truncate(manifest_path(s)), "unavailable", "FormatError", "envelope: not msgpack"),
    "empty manifest": (lambda s: manifest_path(s).write_bytes(b""), "unavailable", "FormatError", "envelope"),
    "wrong object": (lambda s: manifest_path(s).write_bytes(b"<html>"), "unavailable", "FormatError", "envelope"),
    "wrong name": (swapped_manifest, "unavailable", "FormatError", "under the name of"),
    "lying size": (lying_size, "unavailable", "IntegrityError", "size of the chunk"),
    "chunk gone": (lambda s: chunk_path(s).unlink(), "miss", "", "reading cpu-"),
    "future major": (future_major, "miss", "", "upgrade megacache"),
    "other torch": (
        another_environment(torch_version="2.99.0"),
        "miss",
        "",
        "torch_version is {torch} here, 2.99.0 there",
    ),
    "other python": (another_environment(python="CPython 3.99"), "miss", "", "CPython 3.99 there"),
    "other GPU": (another_environment(device_name="NVIDIA Z1"), "miss", "", "NVIDIA Z1 there"),
    "other CPU": (another_environment(cpu_capability="SVE"), "miss", "", "SVE there"),
}
"""A name, the damage, and the status, error and part of the reason that a warm start must give."""
