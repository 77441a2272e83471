"""Make small stores with one bundle in each, sound or with something wrong in them.

What is made is the same every time: frames are written by hand, times are fixed, and the key is nobody's.
"""

import zlib
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import msgpack

from megacache import _trust
from megacache._bundle import (
    Artifact,
    ChunkRef,
    CompiledFile,
    Digest,
    Envelope,
    Environment,
    Manifest,
    Signature,
    build_blob,
    pack,
    seal,
)
from megacache._bundle.chunk import Chunk
from tests.corpus.frames import frame
from tests.kit.builders import AOT_KEY, artifact, bundle, compiled_file, environment, prefix_of

CACHES = "memory://megacache-corpus"
"""Each member was made for the cache of its own name below it, for which those that are signed are signed."""
HERE, ELSEWHERE = environment(), environment(triton="other")
PLACE = prefix_of(HERE)
CHECKSUM = 4

Objects = Mapping[str, bytes]
"""What a store holds, by key."""


def bad(
    artifacts: tuple[Artifact, ...] = (artifact(), artifact(AOT_KEY, kind="aot_autograd")),
    files: tuple[CompiledFile, ...] = (compiled_file(),),
    *,
    here: Environment = HERE,
) -> Manifest:
    """Describe a bundle by what it holds, without its chunks."""
    made = bundle(artifacts, files=files, here=here).manifest
    return replace(made, created="2026-01-01T00:00:00+00:00", producer="megacache of the corpus")


GOOD = bad()
BLOB = build_blob([artifact(), artifact(AOT_KEY, kind="aot_autograd")])
FILES = pack([["inductor", "ab/library.so", 0o755, b"content"]])


def chunk(raw: bytes, part: str = "artifacts", **lies: Any) -> Chunk:
    """Put content into a chunk, some of whose facts may be others than they are."""
    stored = lies.pop("stored", frame(raw))
    told = {"digest": Digest.of(stored), "stored_size": len(stored), "raw_size": len(raw), "codec": "zstd", **lies}
    return Chunk(ref=ChunkRef(part=part, **told), stored=stored)


def store(manifest: Manifest, *chunks: Chunk, sealed: bytes | None = None, name: str | None = None) -> Objects:
    """Give all objects of a store with one bundle; its manifest may be other bytes, or have another name."""
    whole = replace(manifest, chunks=tuple(one.ref for one in chunks))
    return {
        PLACE.manifest(name or manifest.bundle): seal(whole) if sealed is None else sealed,
        **{PLACE.chunk(one.ref.digest): one.stored for one in chunks},
    }


def good_store(**changes: Any) -> Objects:
    """Give a sound bundle, but for its manifest's bytes or name."""
    return store(GOOD, chunk(BLOB), chunk(FILES, "files"), **changes)


def document(**changes: Any) -> Objects:
    """Give a sound bundle in whose manifest some fields are others, without asking any check."""
    fields = msgpack.unpackb(payload_of(good_store()))
    return with_payload(pack({**fields, **changes}))


def payload_of(objects: Objects) -> bytes:
    """Take a manifest out of its envelope."""
    payload: bytes = msgpack.unpackb(next(iter(objects.values())))["payload"]
    return payload


def with_payload(payload: bytes, *signatures: Signature, **changes: Any) -> Objects:
    """Give a bundle whose manifest is any bytes, in a right envelope."""
    return good_store(sealed=Envelope(payload=payload, signatures=signatures).pack(), **changes)


def artifacts_store(raw: bytes, **lies: Any) -> Objects:
    """Give a bundle with other bytes in place of its artifacts."""
    return store(GOOD, chunk(raw, **lies), chunk(FILES, "files"))


def files_store(*rows: object) -> Objects:
    """Give a bundle whose chunk of files holds others than its manifest says."""
    return store(GOOD, chunk(BLOB), chunk(pack(list(rows)), "files"))


def hostile_artifact(key: str, kind: str = "inductor") -> Objects:
    """Give a bundle that says openly what it holds."""
    one = artifact(key, kind=kind)
    return store(bad((one,), ()), chunk(build_blob([one])))


def hostile_file(path: str, root: str = "inductor") -> Objects:
    """Give a bundle that says openly which file it holds."""
    one = CompiledFile(root=root, path=path, mode=0o755, content=b"content")
    row = pack([[one.root, one.path, one.mode, one.content]])
    return store(bad(files=(one,)), chunk(BLOB), chunk(row, "files"))


def file_row(mode: int) -> Objects:
    """Give a bundle whose file has another mode, in its manifest and in its chunk."""
    ref = GOOD.files.index[0]
    row = [ref.root, ref.path, str(ref.digest), ref.size, mode]
    chunks = chunk(BLOB), chunk(pack([[ref.root, ref.path, mode, b"content"]]), "files")
    sound = store(GOOD, *chunks)
    fields = msgpack.unpackb(payload_of(sound))
    changed = pack({**fields, "files": {**fields["files"], "index": [row]}})
    return store(GOOD, *chunks, sealed=Envelope(payload=changed).pack())


def first_chunk(change: Callable[[bytes], bytes | None]) -> Objects:
    """Give a sound bundle, whose chunk of artifacts is damaged or gone."""
    objects = dict(good_store())
    key = PLACE.chunk(chunk(BLOB).ref.digest)
    changed = change(objects.pop(key))
    return objects if changed is None else {**objects, key: changed}


def flipped(data: bytes) -> bytes:
    """Change one bit in the middle."""
    at = len(data) // 2
    return data[:at] + bytes([data[at] ^ 0x10]) + data[at + 1 :]


def checked(rest: bytes) -> bytes:
    """Put the right checksum before the rest of a blob."""
    return zlib.crc32(rest).to_bytes(CHECKSUM, "big") + rest


class Greeting:
    """Unpickles into a line on stdout, by which a reader that unpickles would be found out."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return print, ("a pickle was opened",)


def signer() -> Any:
    """Give the signer of the corpus, which guards nothing."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

    return _trust._library().CryptoSigner(Ed25519PrivateKey.from_private_bytes(bytes(range(32))))


def scope_of(name: str) -> str:
    """Say what a signature for a member is made for."""
    return f"memory:///megacache-corpus/{name}"


def signed(cache: str, /, *, scope: str | None = None, here: Environment = HERE, **changes: Any) -> Objects:
    """Give a sound bundle with a right signature for a cache."""
    payload = payload_of(good_store()) if here is HERE else payload_of(moved(here))
    return with_payload(payload, _trust.sign(signer(), payload, scope or scope_of(cache)), **changes)


def moved(here: Environment) -> Objects:
    """Give the bundle of another environment."""
    return store(replace(bad(here=here), bundle=GOOD.bundle), chunk(BLOB), chunk(FILES, "files"))


def tampered() -> Objects:
    """Give a signed bundle that was changed after it was signed."""
    payload = payload_of(good_store())
    signature = _trust.sign(signer(), payload, scope_of("tampered-signature"))
    return with_payload(pack({**msgpack.unpackb(payload), "producer": "somebody"}), signature)


def repeated() -> Objects:
    """Give a bundle whose chunk holds one artifact over and over."""
    return artifacts_store(build_blob([artifact()] * 1_000))
