"""Artifacts become chunks and a manifest, and come out of them only if nothing is wrong."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch._dynamo.pgo import get_cache_key
from torch._inductor.codecache import sha256_hash
from torch._inductor.runtime.autotune_cache import AutotuneCache

from megacache import _bundle
from megacache._blob import Artifact, build_blob, parse_blob
from megacache._bundle import (
    artifact_chunks,
    bundle_id,
    describe,
    identify,
    is_portable,
    payloads,
    unpack_chunk,
)
from megacache._chunk import pack_chunk
from megacache._digest import Digest
from megacache.errors import FormatError, IntegrityError, MegacacheError, UntrustedError
from tests.builders import (
    AOT_KEY,
    AUTOTUNE_KEY,
    INDUCTOR_KEY,
    PGO_KEY,
    UNHURRIED,
    Bundle,
    artifact,
    bundle,
    environment,
    payload,
    plain,
    portable_artifact,
)

MIB = 1 << 20
REAL_KEYS = [("inductor", INDUCTOR_KEY), ("aot_autograd", AOT_KEY), ("autotune", AUTOTUNE_KEY), ("pgo", PGO_KEY)]


def unpack(bundle: Bundle, **lies: object) -> list[Artifact]:
    """Unpack the only chunk of a bundle, after changing what its manifest says of it."""
    (chunk,) = bundle.chunks
    return list(parse_blob(unpack_chunk(bundle.manifest, replace(chunk.ref, **lies), chunk.stored).blob))  # type: ignore[arg-type]


@UNHURRIED
@given(st.lists(portable_artifact, max_size=20), st.integers(200, 2000))
def test_chunks_keep_to_their_size(artifacts: list[Artifact], limit: int) -> None:
    """In the order given, each chunk takes as many artifacts as fit; only one alone may make it larger."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_bundle, "CHUNK_SIZE", limit)
        groups = list(_bundle._groups(artifacts))
    assert [one for members in groups for one in members] == artifacts
    assert all(len(members) == 1 or len(build_blob(members)) <= limit for members in groups)
    for members, following in pairwise(groups):
        assert sum(one.weight for one in (*members, following[0])) > limit


def test_chunks_hold_32_mib() -> None:
    """An artifact larger than a chunk goes alone; the others share chunks of 32 MiB at most."""
    ten, forty = bytes(10 * MIB), bytes(40 * MIB)
    found = [artifact(str(n), content) for n, content in enumerate([ten, forty, ten, ten, ten, ten])]
    assert [[one.key for one in parse_blob(made.build())] for made in payloads(found)] == [
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


def test_bundle_is_named_by_kinds_and_keys() -> None:
    """The order of artifacts, their contents and repeats do not change a bundle's id; a key or a kind does."""
    first, second = artifact("one", b"1"), artifact("two", b"2")
    name = bundle_id(map(identify, [first, second]), [])
    assert len(name) == 32
    assert bundle_id(map(identify, [second, first]), []) == name
    assert bundle_id(map(identify, [artifact("one", b"other"), second, first]), []) == name
    others: list[Sequence[Artifact]] = [[first], [first, artifact("2")], [first, artifact("two", kind="pgo")]]
    assert name not in {bundle_id(map(identify, other), []) for other in others}


def test_bundle_is_named_by_its_parents() -> None:
    """A process that knew other bundles names another bundle, in whatever order it knew them."""
    refs = [identify(artifact())]
    orphan, child = bundle_id(refs, []), bundle_id(refs, ["aa", "bb"])
    assert orphan != child == bundle_id(refs, ["bb", "aa"])
    assert bundle_id(refs, ["aabb"]) != child


def test_manifest_describes_the_bundle() -> None:
    """A new manifest holds what it was given, is named by it, and says when it was made."""
    refs, chunk = [identify(artifact())], pack_chunk(payload([artifact()]))
    manifest = describe(
        environment=environment(), artifacts=refs, chunks=[chunk.ref], parents={"b", "a"}, labels={"commit": "1f"}
    )
    assert manifest.bundle == bundle_id(refs, ["a", "b"])
    assert (manifest.environment, manifest.parents) == (environment(), ("a", "b"))
    assert (manifest.artifacts, manifest.chunks, manifest.labels) == (tuple(refs), (chunk.ref,), {"commit": "1f"})
    assert datetime.fromisoformat(manifest.created).utcoffset() == timedelta(0)
    assert abs(datetime.fromisoformat(manifest.created) - datetime.now(UTC)) < timedelta(days=1)


def test_other_parts_are_passed_over() -> None:
    """Chunks of a part that this version does not know are not its business."""
    made = bundle([artifact()])
    (ref,) = made.manifest.chunks
    assert artifact_chunks(replace(made.manifest, chunks=(replace(ref, part="files"), ref))) == (ref,)


@pytest.mark.parametrize(
    ("lies", "error"),
    [
        ({"digest": Digest.of(b"other")}, IntegrityError),
        ({"raw_size": 1}, IntegrityError),
        ({"codec": "brotli"}, FormatError),
        ({"digest": Digest.of(b"other"), "codec": "brotli", "raw_size": 1}, IntegrityError),
    ],
    ids=["digest", "raw size", "codec", "digest before all else"],
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
    with pytest.raises(FormatError, match="7 bytes is not in the manifest"):
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
        assert is_portable(artifact(key, kind=kind)), (kind, key)


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
    assert not is_portable(artifact(key, kind=kind))
    with pytest.raises(UntrustedError):
        unpack(bundle([artifact(), artifact(key, kind=kind)]))
