"""Things in a store have names that tell what they are."""

import pytest
from hypothesis import given

from megacache._bundle import (
    Digest,
    EnvironmentPrefix,
    Placed,
    environment_prefix,
    manifest_name,
    place,
    slug,
    split_listing,
)
from tests.kit.builders import UNHURRIED, any_text

A, B, C = "a" * 32, "b" * 32, "0123456789abcdef" * 2
FINGERPRINT = "3f9c2b7a10d4e6f8"


def split(*names: str) -> tuple[set[str], set[str]]:
    """Give the visible and the withdrawn ids of a listing."""
    visible, withdrawn = split_listing(names)
    return set(visible), set(withdrawn)


@pytest.mark.parametrize(
    ("device", "folder"),
    [
        ("NVIDIA H100 80GB HBM3", "nvidia-h100-80gb-hbm3"),
        ("NVIDIA A100-SXM4-40GB MIG 1g.5gb", "nvidia-a100-sxm4-40gb-mig-1g-5gb"),
        ("AMD Instinct MI300X", "amd-instinct-mi300x"),
        ("Intel(R) Data Center GPU Max 1100", "intel-r-data-center-gpu-max-1100"),
        ("cpu x86_64 AVX512", "cpu-x86-64-avx512"),
        ("../../etc", "etc"),
        ("a/b", "a-b"),
        ("-_-", "unknown"),
        ("", "unknown"),
        ("图形", "unknown"),
    ],
)
def test_device_names_become_folder_names(device: str, folder: str) -> None:
    """A device name becomes a folder name that every store and shell can take."""
    assert slug(device) == folder


@UNHURRIED
@given(any_text)
def test_slug_is_always_one_plain_folder(device: str) -> None:
    """Whatever the device is called, its folder is one level of plain letters, and naming it again changes nothing."""
    assert slug(device).strip("abcdefghijklmnopqrstuvwxyz0123456789-") == ""
    assert slug(slug(device)) == slug(device) != ""


@pytest.mark.parametrize(
    ("marks", "hidden"),
    [
        (["quarantined"], True),
        (["superseded"], True),
        (["pinned"], False),
        (["pinned", "superseded"], False),
        (["pinned", "quarantined"], True),
        (["pinned", "quarantined", "superseded"], True),
        (["unknown"], False),
    ],
)
def test_marks_hide_bundles(marks: list[str], *, hidden: bool) -> None:
    """A pin keeps what is superseded in service, and nothing that is quarantined; marks without a manifest count."""
    names = [f"{A}.{mark}" for mark in marks]
    assert split(f"{A}.msgpack", *names) == (set() if hidden else {A}, {A} if hidden else set())
    assert split(*names) == (set(), {A} if hidden else set())


def test_names_in_a_store() -> None:
    """Manifests and chunks lie in two folders below device and fingerprint."""
    prefix = environment_prefix("NVIDIA H100 80GB HBM3", FINGERPRINT)
    digest = Digest.of(b"")
    assert prefix.path == f"nvidia-h100-80gb-hbm3/{FINGERPRINT}"
    assert prefix.bundles == f"{prefix.path}/bundles"
    assert prefix.manifest(A) == f"{prefix.path}/bundles/{A}.msgpack"
    assert prefix.chunk(digest) == f"{prefix.path}/chunks/{digest.hex}.zst"
    assert manifest_name(A) == f"{A}.msgpack"


def test_listing_without_marks_is_visible() -> None:
    """A bundle is visible when its manifest is there."""
    assert split(f"{A}.msgpack", f"{B}.msgpack") == ({A, B}, set())


@pytest.mark.parametrize("mark", ["quarantined", "superseded"])
def test_withdrawing_marks_hide_a_bundle(mark: str) -> None:
    """A bundle with such a mark is withdrawn, before or after its manifest in the listing, or without it."""
    names = [f"{A}.msgpack", f"{A}.{mark}", f"{B}.{mark}", f"{B}.msgpack", f"{C}.{mark}"]
    assert split(*names) == (set(), {A, B, C})


def test_other_marks_hide_nothing() -> None:
    """A mark that withdraws nothing leaves the bundle visible, and makes none of its own."""
    assert split(f"{A}.msgpack", f"{A}.pinned", f"{B}.pinned") == ({A}, set())


@pytest.mark.parametrize(
    "name",
    [
        "",
        "README.md",
        f"{A}",
        f"{A}.msgpack.tmp",
        f".{A}.msgpack.0f.tmp",
        f"{A}.MSGPACK",
        f"{A.upper()}.msgpack",
        f"{A}0.msgpack",
        f"{A[1:]}.msgpack",
        f"old/{A}.msgpack",
        f"{A}.msgpack\n",
        f"{'0' * 16}.{A}.started",
        f"{'0' * 16}.{A}.1.started",
    ],
)
def test_foreign_names_mean_nothing(name: str) -> None:
    """Names of another form are neither bundles nor marks."""
    assert split(name) == (set(), set())
    assert place(f"cpu/{FINGERPRINT}/bundles/{name}") is None


def test_keys_of_a_cache_tell_what_they_are() -> None:
    """Manifests, marks and chunks are known by their keys, as they are named by their prefix."""
    digest = Digest.of(b"")
    prefix = EnvironmentPrefix(f"cpu/{FINGERPRINT}")
    assert place(prefix.manifest(A)) == Placed(prefix=prefix, manifest=A)
    assert place(prefix.mark(A, "pinned")) == Placed(prefix=prefix, mark=(A, "pinned"))
    assert place(prefix.chunk(digest)) == Placed(prefix=prefix, chunk=digest)
    assert place(prefix.signature(A, "0" * 16)) == Placed(prefix=prefix, signature=(A, "0" * 16))
    assert (prefix.device, prefix.fingerprint) == ("cpu", FINGERPRINT)


@pytest.mark.parametrize(
    "key",
    [
        f"{FINGERPRINT}/bundles/{A}.msgpack",
        f"cpu/{FINGERPRINT}0/bundles/{A}.msgpack",
        f"CPU/{FINGERPRINT}/bundles/{A}.msgpack",
        f"x/cpu/{FINGERPRINT}/bundles/{A}.msgpack",
        f"../{FINGERPRINT}/bundles/{A}.msgpack",
        f"cpu/{FINGERPRINT}/chunks/{A}.msgpack",
        f"cpu/{FINGERPRINT}/chunks/{A}.zst",
        f"cpu/{FINGERPRINT}/leases/{A}.msgpack",
    ],
)
def test_foreign_paths_are_no_objects_of_a_cache(key: str) -> None:
    """A path of another form is not taken for one that megacache writes."""
    assert place(key) is None
