"""Artifacts become chunks, and come out of them only if nothing is wrong."""

import pickle
from collections import defaultdict
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.pgo import get_cache_key
from torch._inductor.codecache import sha256_hash
from torch._inductor.runtime.autotune_cache import AutotuneCache

from megacache import _compiler
from megacache._bundle import (
    Artifact,
    Digest,
    artifact_payloads,
    build_blob,
    is_portable_artifact,
    parse_blob,
    unpack_chunk,
)
from megacache._runtime import Deadline
from megacache.errors import CompilerError, FormatError, IntegrityError, MegacacheError, UntrustedError
from tests.kit.builders import (
    AOT_KEY,
    AUTOTUNE_KEY,
    INDUCTOR_KEY,
    PGO_KEY,
    UNHURRIED,
    Bundle,
    artifact,
    bundle,
    plain,
    portable_artifact,
)

MIB = 1 << 20
REAL_KEYS = [("inductor", INDUCTOR_KEY), ("aot_autograd", AOT_KEY), ("autotune", AUTOTUNE_KEY), ("pgo", PGO_KEY)]


def unpack(bundle: Bundle, **lies: object) -> list[Artifact]:
    """Unpack the only chunk of a bundle, after changing what its manifest says of it."""
    (chunk,) = bundle.chunks
    return list(parse_blob(unpack_chunk(bundle.manifest, replace(chunk.ref, **lies), chunk.stored).blob))  # type: ignore[arg-type]


def test_chunks_hold_32_mib() -> None:
    """An artifact larger than a chunk goes alone; the others share chunks of 32 MiB at most."""
    ten, forty = bytes(10 * MIB), bytes(40 * MIB)
    found = [artifact(str(n), content) for n, content in enumerate([ten, forty, ten, ten, ten, ten])]
    assert [[one.key for one in parse_blob(made.build())] for made in artifact_payloads(found)] == [
        ["0"],
        ["1"],
        ["2", "3", "4"],
        ["5"],
    ]


@UNHURRIED
@given(st.lists(portable_artifact, max_size=8))
def test_what_is_packed_is_unpacked(artifacts: list[Artifact]) -> None:
    """Verifying and decompressing a chunk gives a blob with the artifacts that were packed."""
    assert sorted(map(plain, unpack(bundle(artifacts)))) == sorted(map(plain, artifacts))


@pytest.mark.parametrize(
    ("lies", "error"),
    [
        ({"digest": Digest.of(b"other")}, IntegrityError),
        ({"stored_size": 1_000}, IntegrityError),
        ({"raw_size": 1}, IntegrityError),
        ({"codec": "brotli"}, FormatError),
        ({"digest": Digest.of(b"other"), "codec": "brotli", "raw_size": 1}, IntegrityError),
    ],
    ids=["digest", "stored size", "raw size", "codec", "digest before all else"],
)
def test_chunk_that_is_not_as_declared_is_refused(lies: dict[str, object], error: type[MegacacheError]) -> None:
    """A chunk is refused where its bytes are not what the manifest says of them."""
    made = bundle([artifact()])
    assert unpack(made)
    with pytest.raises(error) as caught:
        unpack(made, **lies)
    if isinstance(caught.value, IntegrityError) and "digest" in lies:
        assert (caught.value.expected, caught.value.actual) == (lies["digest"], made.chunks[0].ref.digest)


@pytest.mark.parametrize("change", [{"key": "other"}, {"kind": "aot_autograd"}, {"size": 6}, {"size": 8}])
def test_undeclared_artifact_is_refused(change: dict[str, object]) -> None:
    """An artifact is only unpacked if the manifest names its kind, its key and its size."""
    made = bundle([artifact(content=b"7 bytes")])
    (ref,) = made.manifest.artifacts
    lying = replace(made.manifest, artifacts=(replace(ref, **change),))  # type: ignore[arg-type]
    with pytest.raises(FormatError, match="7 bytes is not one of the manifest"):
        unpack(Bundle(manifest=lying, chunks=made.chunks))


def test_torchs_own_keys_travel() -> None:
    """Keys as the installed PyTorch makes them are accepted, and those seen in real caches."""
    kernel = "/tmp/torchinductor_user/ab/" + "c" + sha256_hash(b"") + ".py"
    with torch.compiler.config.patch(job_id="training-run-7"):  # type: ignore[attr-defined]
        pgo = get_cache_key()
    assert pgo is not None
    for kind, key in [
        ("inductor", "f" + sha256_hash(b"")),
        ("aot_autograd", "a" + sha256_hash(b"")),
        ("autotune", f"ab/{AutotuneCache._prepare_key(kernel)}.best_config"),
        ("pgo", pgo),
        ("pgo", f"mast:some_job:3:{pgo}"),
        *REAL_KEYS,
    ]:
        assert is_portable_artifact(artifact(key, kind=kind)), (kind, key)


def test_longest_key_of_a_profile_is_one_that_pytorch_can_write(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It writes `.tmp` and `.lock` files beside the profile; one character more, and it refuses the whole blob."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    longest = next(n for n in range(300, 0, -1) if is_portable_artifact(artifact("x" * n, kind="pgo")))
    profile = pickle.dumps(defaultdict(dict))
    _compiler.load_if_met(build_blob([artifact("x" * longest, profile, kind="pgo")]), {}, Deadline.after(60))
    with pytest.raises(CompilerError, match="too long"):
        _compiler.load_if_met(build_blob([artifact("x" * (longest + 1), profile, kind="pgo")]), {}, Deadline.after(60))


CLIMBING = ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "a/b", "a\\b", "a\0", "a\n", "a.so", "кључ", "x" * 129]


@pytest.mark.parametrize(
    ("kind", "key"),
    [
        *(("inductor", key) for key in CLIMBING),
        *(("aot_autograd", key) for key in CLIMBING),
        *(("autotune", f"{key}.best_config") for key in CLIMBING if key != "a/b"),
        *(("autotune", f"ab/{key}.best_config") for key in CLIMBING),
        *(
            ("autotune", key)
            for key in ["ab/x", "ab/x.py", "ab/x.best_config\n", "/ab/x.best_config", "ab//x.best_config"]
        ),
        *(("pgo", key) for key in ["", "a\nb", "a\0", "é", "x" * 513]),
        *((kind, INDUCTOR_KEY) for kind in ["precompile", "", "Inductor", "inductor "]),
        ("precompile", "0f" * 32),
    ],
)
def test_what_could_do_harm_is_not_opened(kind: str, key: str) -> None:
    """An artifact of another kind, or with a key that PyTorch would not make, is refused although it is declared."""
    assert not is_portable_artifact(artifact(key, kind=kind))
    with pytest.raises(UntrustedError):
        unpack(bundle([artifact(), artifact(key, kind=kind)]))
