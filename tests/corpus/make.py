"""Make the corpus anew: `python -m tests.corpus.make` writes a zip of all objects of a store for each member."""

import pickle
import stat
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import msgpack

from megacache._bundle import Signature, build_blob, pack, seal
from tests.corpus.frames import bomb, frame, frame_without_size
from tests.corpus.stores import (
    BLOB,
    CHECKSUM,
    ELSEWHERE,
    GOOD,
    Greeting,
    Objects,
    artifacts_store,
    checked,
    chunk,
    document,
    file_row,
    files_store,
    first_chunk,
    flipped,
    good_store,
    hostile_artifact,
    hostile_file,
    moved,
    payload_of,
    repeated,
    scope_of,
    signed,
    store,
    tampered,
    with_payload,
)
from tests.kit.builders import AOT_KEY, artifact

FOLDER = Path(__file__).parent
MEMBERS: Mapping[str, Callable[[], Objects]] = {
    "truncated-manifest": lambda: good_store(sealed=seal(GOOD)[:-50]),
    "empty-manifest": lambda: good_store(sealed=b""),
    "future-major": lambda: with_payload(pack({"format": [2, 0], "all": "new"})),
    "other-payload-type": lambda: good_store(
        sealed=pack({"payloadType": "application/json", "payload": b"{}", "signatures": []})
    ),
    "wrong-bundle-name": lambda: good_store(name="0" * 32),
    "moved-environment": lambda: moved(ELSEWHERE),
    "pickle-instead-of-msgpack": lambda: good_store(sealed=pickle.dumps(Greeting(), protocol=4)),
    "pickle-as-payload": lambda: with_payload(pickle.dumps(Greeting(), protocol=4)),
    "msgpack-extension": lambda: document(labels=msgpack.ExtType(1, b"os.system")),
    "msgpack-deep-nesting": lambda: with_payload(b"\x91" * 100_000 + b"\xc0"),
    "msgpack-huge-count": lambda: with_payload(b"\xdd\xff\xff\xff\xff"),
    "msgpack-many-values": lambda: with_payload(b"\xdd" + (1 << 21).to_bytes(4, "big") + b"\x90" * (1 << 21)),
    "duplicate-keys": lambda: with_payload(b"\x82" + pack("format") + pack([1, 0]) + pack("format") + pack([1, 1])),
    "negative-size": lambda: document(artifacts=[["inductor", "k", f"sha256:{'0' * 64}", -1]]),
    "guard-of-numbers": lambda: document(artifacts=[["inductor", "k", f"sha256:{'0' * 64}", 1, [1, 2]]]),
    "too-many-operators": lambda: document(operators={f"shop::op{n}": "" for n in range(5_000)}),
    "operator-of-code": lambda: document(operators={"shop::bump": ["__import__", "os"]}),
    "chunk-of-terabytes": lambda: document(chunks=[["artifacts", f"sha256:{'0' * 64}", 1 << 40, 1 << 40, "zstd"]]),
    "too-many-labels": lambda: document(labels={str(n): "" for n in range(1_000)}),
    "too-many-chunks": lambda: document(chunks=[["artifacts", f"sha256:{'0' * 64}", 1, 1, "zstd"]] * 20_000),
    "too-many-signatures": lambda: with_payload(
        payload_of(good_store()), *[Signature(keyid="k", scope="s", sig=b"s")] * 100
    ),
    "digest-of-another-kind": lambda: document(chunks=[["artifacts", "md5:" + "0" * 32, 1, 1, "zstd"]]),
    "artifacts-without-chunks": lambda: store(GOOD),
    "chunk-missing": lambda: first_chunk(lambda _: None),
    "chunk-truncated": lambda: first_chunk(lambda data: data[:-1]),
    "chunk-flipped": lambda: first_chunk(flipped),
    "stored-size-lie": lambda: artifacts_store(BLOB, stored_size=1_000),
    "chunk-bomb": lambda: artifacts_store(b"", stored=bomb(100, blocks=512), raw_size=100),
    "chunk-bomb-without-size": lambda: artifacts_store(BLOB, stored=frame_without_size(BLOB)),
    "raw-size-lie": lambda: artifacts_store(BLOB, raw_size=100),
    "frame-size-lie": lambda: artifacts_store(BLOB, stored=frame(BLOB, size=100), raw_size=100),
    "not-zstd": lambda: artifacts_store(BLOB, stored=BLOB),
    "two-frames": lambda: artifacts_store(BLOB, stored=frame(BLOB) + frame(BLOB)),
    "unknown-codec": lambda: artifacts_store(BLOB, codec="lzma"),
    "blob-crc": lambda: artifacts_store(BLOB[:-1] + b"?"),
    "blob-length-lie": lambda: artifacts_store(checked(BLOB[CHECKSUM:-15] + b"\xff" * 8 + b"content")),
    "blob-version": lambda: artifacts_store(checked(bytes(7) + b"\2")),
    "blob-of-repeats": repeated,
    "unknown-kind": lambda: hostile_artifact("k", kind="shell"),
    "precompile-kind": lambda: hostile_artifact("f" * 64, kind="precompile"),
    "key-traversal": lambda: hostile_artifact("../../../escaped"),
    "key-dotdot": lambda: hostile_artifact(".."),
    "key-absolute": lambda: hostile_artifact("/tmp/escaped.best_config", kind="autotune"),
    "key-nul": lambda: hostile_artifact("a\0b"),
    "key-overlong": lambda: hostile_artifact("k" * 1_000, kind="pgo"),
    "key-hidden-in-chunk": lambda: artifacts_store(build_blob([artifact("../../../escaped")])),
    "artifact-not-in-manifest": lambda: artifacts_store(build_blob([artifact("other")])),
    "artifact-of-another-digest": lambda: artifacts_store(
        build_blob([artifact(content=b"CONTENT"), artifact(AOT_KEY, kind="aot_autograd")])
    ),
    "path-absolute": lambda: hostile_file("/tmp/escaped.so"),
    "path-dotdot": lambda: hostile_file("../../escaped.so"),
    "path-nul": lambda: hostile_file("ab/escaped.so\0.so"),
    "path-backslash": lambda: hostile_file("ab\\..\\escaped.so"),
    "path-overlong": lambda: hostile_file("/".join(["a" * 250] * 5) + ".so"),
    "path-hidden": lambda: hostile_file("ab/.escaped.so"),
    "path-device": lambda: hostile_file("dev/null"),
    "path-hidden-in-chunk": lambda: files_store(["inductor", "../../escaped.so", 0o755, b"content"]),
    "source-file": lambda: hostile_file("ab/escaped.py"),
    "root-unknown": lambda: hostile_file("ab/escaped.so", root="/etc"),
    "symlink": lambda: hostile_file("linked/escaped.so"),
    "device-mode": lambda: file_row(stat.S_IFBLK | 0o666),
    "setuid-mode": lambda: file_row(0o4755),
    "file-twice": lambda: files_store(*[["inductor", "ab/library.so", 0o755, b"content"]] * 2),
    "file-not-in-manifest": lambda: files_store(["inductor", "ab/other.so", 0o755, b"content"]),
    "files-extension": lambda: files_store(msgpack.ExtType(5, b"os.system")),
    "files-deep-nesting": lambda: store(GOOD, chunk(BLOB), chunk(b"\x91" * 100_000, "files")),
    "unsigned": good_store,
    "tampered-signature": tampered,
    "signed-for-another-cache": lambda: signed("signed-for-another-cache", scope=scope_of("another")),
    "signed-under-another-name": lambda: signed("signed-under-another-name", name="0" * 32),
    "signed-for-another-environment": lambda: signed("signed-for-another-environment", here=ELSEWHERE),
}
"""By name, what makes each."""


def write(folder: Path) -> None:
    """Write all members."""
    for name, build in MEMBERS.items():
        with zipfile.ZipFile(folder / f"{name}.zip", "w") as archive:
            for key, data in build().items():
                archive.writestr(zipfile.ZipInfo(key), data, zipfile.ZIP_DEFLATED, 9)


def read(name: str) -> Objects:
    """Read the objects of a member as they are committed."""
    with zipfile.ZipFile(FOLDER / f"{name}.zip") as archive:
        return {key: archive.read(key) for key in archive.namelist()}


if __name__ == "__main__":
    for stale in FOLDER.glob("*.zip"):
        stale.unlink()
    write(FOLDER)
