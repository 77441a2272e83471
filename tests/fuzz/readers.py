"""The readers of what a store or a disk holds, each as a function that takes bytes and says what must then be so.

A reader accepts bytes or raises a `MegacacheError`. Any other exception, a file outside of its root and a value beyond
its bounds is a bug: an `AssertionError`, or whatever it is, goes on to who feeds them.
"""

import json
import os
import pickle
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace

import msgpack

from megacache import _compiler, _trust
from megacache._bundle import (
    Artifact,
    CompiledFile,
    Component,
    FilesPart,
    GraphKey,
    Manifest,
    Payload,
    build_blob,
    chunks_of,
    declared_names,
    identify_file,
    is_known_artifact,
    open_envelope,
    pack_chunk,
    pack_keys,
    pack_signatures,
    parents_first,
    parse_keys,
    parse_manifest,
    parse_signatures,
    refusal,
    seal,
    unpack_chunk,
)
from megacache._bundle.chunk import compress, decompress
from megacache._cache.crash_guard import Markers
from megacache._cache.crash_guard.markers import Suspect
from megacache._cache.explain.nearest import differences, nearest
from megacache._trust import TrustPolicy
from megacache.errors import MegacacheError
from tests.corpus.stores import signer
from tests.fuzz.traps import Traps
from tests.kit.builders import AOT_KEY, AUTOTUNE_KEY, PGO_KEY, Graph, artifact, bundle, compiled_file, environment

Read = Callable[[bytes], None]
SCOPE = "memory:///fuzz"
ARTIFACTS = [
    artifact(),
    artifact(AOT_KEY, kind="aot_autograd"),
    artifact(AUTOTUNE_KEY, kind="autotune"),
    artifact(PGO_KEY, kind="pgo"),
]
FILES = [compiled_file(), compiled_file("cd/two.json", b"{}", mode=0o644)]
MADE = bundle(ARTIFACTS, here=environment({"threads": "8"}), labels={"commit": "1f"}, files=FILES)
MANIFEST = MADE.manifest
POLICY = TrustPolicy(keys=(signer().public_key,), threshold=1)
CHECKSUM = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """One reader, and inputs that it accepts."""

    read: Read
    seeds: tuple[bytes, ...]

    def accepts(self, data: bytes) -> bool:
        """Tell whether it takes some bytes; every exception but a `MegacacheError` goes on."""
        try:
            self.read(data)
        except MegacacheError:
            return False
        return True


def read_envelope(data: bytes) -> None:
    """Open an envelope and check it: what is not the payload that was signed is not trusted."""
    envelope = open_envelope(data)
    with suppress(MegacacheError):
        POLICY.check(envelope, SCOPE)
        assert envelope.payload == SIGNED.payload
    read_manifest(envelope.payload)


def read_signatures(data: bytes) -> None:
    """Read signatures that lie beside a manifest, which another payload does not satisfy."""
    signatures = parse_signatures(data)
    other = replace(SIGNED, payload=b"other", signatures=signatures)
    try:
        POLICY.check(other, SCOPE)
    except MegacacheError:
        return
    raise AssertionError


def read_manifest(data: bytes) -> None:
    """Read a manifest and use it as a warm start does before anything is fetched."""
    manifest = parse_manifest(data)
    assert len(manifest.artifacts) <= 1 << 16
    assert len(str(manifest.environment.mismatches(MANIFEST.environment))) < 1 << 26
    assert len(manifest.environment.fingerprint) == 16
    assert manifest.environment.device is not None
    assert parents_first([manifest, MANIFEST])
    assert len(chunks_of(manifest, files=True)) <= len(manifest.chunks)
    assert len(declared_names(manifest, files=True)) <= len(manifest.artifacts) + len(manifest.files.index)
    if refusal(manifest) is None:
        assert all(is_known_artifact(ref.kind, ref.key) for ref in manifest.artifacts)
        assert all(is_inside(ref.path) for ref in manifest.files.index)


def is_inside(path: str) -> bool:
    """Tell by other means than megacache's whether a path stays where it is put."""
    inside = os.path.normpath(f"/root/{path}").startswith("/root/") and os.path.normpath(path) == path
    return inside and "\0" not in path and not path.startswith("/") and len(path) < 1_024


def read_frame(data: bytes) -> None:
    """Decompress a frame into what the two bytes before it say."""
    size = int.from_bytes(data[:2], "big")
    assert len(decompress(data[2:], raw_size=size)) == size


def read_blob(data: bytes) -> None:
    """Read artifacts under a right checksum, a right digest and a right size."""
    raw = zlib.crc32(data).to_bytes(CHECKSUM, "big") + data
    made = pack_chunk(Payload(part="artifacts", weight=0, build=lambda: raw))
    found = unpack_chunk(MANIFEST, made.ref, made.stored)
    assert found.blob == raw
    assert found.names <= declared_names(MANIFEST, files=False)


def read_files(data: bytes) -> None:
    """Read compiled files from a chunk whose manifest says the same, and bring them into a folder full of traps."""
    made = pack_chunk(Payload(part="files", weight=0, build=lambda: data))
    found = unpack_chunk(_agreeing(data), made.ref, made.stored).files
    with TRAPS:
        for file in found:
            assert is_inside(file.path)
            TRAPS.restore(file)


def read_explain(data: bytes) -> None:
    """Read what keys were made of, and compare each with the nearest."""
    keys = parse_keys(data)
    for key in keys[:3]:
        other = nearest(key, keys)
        assert other is not None
        assert all(len(one.here) <= 200 for one in differences(key, other))
        assert all(len(one.there) <= 200 for one in differences(KEYS[0], key))


def read_components(data: bytes) -> None:
    """Read a graph's key out of what was recorded for it."""
    found = _compiler.graph_key(Artifact(kind="inductor", key="k", content=data))
    assert found is None or found.components
    assert all(len(key) == 52 for key in _compiler.graphs_below(artifact(content=data)))


def accused(data: bytes) -> Sequence[Suspect]:
    """Give what a marker of another process accuses."""
    (TRAPS.folder / "starts").mkdir(exist_ok=True)
    (TRAPS.folder / "starts" / f"{0:032x}.json").write_bytes(data)
    return tuple(Markers(TRAPS.folder / "starts").deaths().suspects.values())


def read_marker(data: bytes) -> None:
    """Read a marker of another process; it accuses only what a warm start could have put in place."""
    for suspect in accused(data):
        assert all(is_known_artifact(kind, key) for kind, key in suspect.artifacts)
        assert all(is_inside(path) for _, path in suspect.files)


def _agreeing(data: bytes) -> Manifest:
    """Describe files as a chunk of them does, so that they are refused for what they are and not for differing."""
    rows: object = ()
    with suppress(ValueError, TypeError, msgpack.exceptions.UnpackException):
        rows = msgpack.unpackb(data)
    items = rows if isinstance(rows, list) else ()
    whole = [row for row in items if isinstance(row, list) and list(map(type, row[:4])) == [str, str, int, bytes]]
    files = [CompiledFile(root=row[0], path=row[1], mode=row[2], content=row[3]) for row in whole]
    return replace(MANIFEST, files=FilesPart(index=tuple(map(identify_file, files))))


def _graph_keys() -> Sequence[GraphKey]:
    """Make keys that differ in code, inputs and settings."""
    settings = {f"inductor_config[{name}]": Component(f"d{name}", str(name)) for name in range(8)}
    tensor = "TensorMetadata(dtype=torch.float32, shape=torch.Size([8, 16]), stride=(16, 1), device=device('cpu'))"
    own = {
        "gm": Component("g", "def forward(self, x):\n    return x"),
        "example_inputs[0]": Component("e", tensor),
        "fx_kwargs[is_backward]": Component("f", "False"),
        "fx_kwargs[is_inference]": Component("t", "True"),
    }
    return [
        GraphKey(kind="inductor", key="a", components={**settings, **own}),
        GraphKey(kind="inductor", key="b", components={**own, "gm": Component("h", "x")}, guard="s0 > 2"),
    ]


def _recorded() -> bytes:
    """Make what Inductor records for a graph, as far as it is read."""
    return pickle.dumps(Graph([f"[{'a2' * 25}b] gm: code", f"[{'c3' * 25}d] inputs[0]: [1]"], "s0 > 2"), protocol=4)


PAYLOAD = open_envelope(seal(MANIFEST)).payload
SIGNED = open_envelope(seal(MANIFEST, lambda payload: _trust.sign(signer(), payload, SCOPE)))
KEYS = _graph_keys()
TRAPS = Traps()
ROWS = [
    ["inductor", "ab/x.so", 0o755, b"content"],
    ["triton", "KEY/__grp__k.json", 0o644, b'"[root]/x"'],
    ["inductor", "linked/x.so", 0o755, b""],
    ["inductor", "kept/x.so", 0o755, b"replaced"],
]
SUSPECT = Suspect(bundle="0", artifacts=(("inductor", "f1"), ("pgo", "k")), files=(("inductor", "ab/x.so"),))
MARKER = json.dumps({"loads": [asdict(SUSPECT)], "again": [SUSPECT.bundle]}).encode()

READERS: Mapping[str, Reader] = {
    "envelope": Reader(read=read_envelope, seeds=(seal(MANIFEST), SIGNED.pack())),
    "signatures": Reader(read=read_signatures, seeds=(pack_signatures(SIGNED.signatures),)),
    "manifest": Reader(read=read_manifest, seeds=(PAYLOAD,)),
    "frame": Reader(read=read_frame, seeds=((100).to_bytes(2, "big") + compress(b"content " * 12 + b"last"),)),
    "blob": Reader(read=read_blob, seeds=(build_blob(ARTIFACTS)[CHECKSUM:], build_blob([])[CHECKSUM:])),
    "files": Reader(read=read_files, seeds=(msgpack.packb(ROWS), msgpack.packb(ROWS[:1]))),
    "explain": Reader(read=read_explain, seeds=(pack_keys(KEYS),)),
    "components": Reader(read=read_components, seeds=(_recorded(),)),
    "marker": Reader(read=read_marker, seeds=(MARKER,)),
}
"""By name."""
