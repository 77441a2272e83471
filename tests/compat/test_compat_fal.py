"""A program written for fal runs with its import line changed, and finds what it relies on."""

import inspect
import json
import logging
import subprocess
import sys
from pathlib import Path

import pytest

from megacache._runtime import Stopwatch
from megacache.compat import fal
from tests.kit.processes import Processes, step
from tests.kit.servers import free_port
from tests.test_package import FOREIGN

SIGNATURES = {
    "get_gpu_type": "() -> str",
    "load_inductor_cache": "(cache_key: str) -> str",
    "sync_inductor_cache": "(cache_key: str, unpacked_dir_hash: str) -> None",
    "synchronized_inductor_cache": "(cache_key: str) -> collections.abc.Iterator[None]",
}
"""Those of fal 1.83.0."""


def test_documented_programs_start_warm(processes: Processes, tmp_path: Path) -> None:
    """Both examples of fal compile in one process and hit in the next, which has an empty cache folder, bit for bit.

    Each key is a cache of its own below the URL. What a block compiles before it fails is there as well.
    """
    there: dict[str, str | None] = {"MEGACACHE_URL": f"file://{tmp_path}/store"}
    again = step("start_afresh")
    cold, _, by_hand, _, failed = processes.run(
        step("migrated", program="fal_block", key="mymodel/v1"),
        again,
        step("migrated", program="fal_by_hand", key="flux/2"),
        again,
        step("migrated", program="fal_block", key="failing/v1", fails=True),
        environment=there,
    )
    assert cold["fx_miss"] > 0
    assert by_hand["dir_hash"] == ""
    assert (cold["caught"], failed["caught"]) == ("", "the block failed")
    warm_by_hand, _, warm, _, warm_failed = processes.run(
        step("migrated", program="fal_by_hand", key="flux/2"),
        step("start_afresh", folder=str(processes.new_folder())),
        step("migrated", program="fal_block", key="mymodel/v1"),
        step("start_afresh", folder=str(processes.new_folder())),
        step("migrated", program="fal_block", key="failing/v1"),
        environment=there,
    )
    assert len(bytes.fromhex(warm_by_hand["dir_hash"])) == 32
    for ran in (warm_by_hand, warm, warm_failed):
        assert (ran["fx_miss"], ran["aot_miss"], ran["digest"]) == (0, 0, cold["digest"])
        assert ran["aot_hit"] > 0
    for key in ("mymodel/v1", "flux/2", "failing/v1"):
        assert len(list((tmp_path / "store" / key).glob("*/*/bundles/*.msgpack"))) == 1


def test_store_that_is_down_costs_the_program_nothing(processes: Processes) -> None:
    """With a store that does not answer the program compiles, and no exception reaches it."""
    nowhere: dict[str, str | None] = {
        "MEGACACHE_URL": "s3://bucket",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    child = processes.start(step("migrated", program="fal_by_hand", key="mymodel/v1"), environment=nowhere)
    (ran,) = child.answers()
    assert ran["dir_hash"] == ""
    assert ran["fx_miss"] > 0


def test_signatures_are_fals() -> None:
    """Each function takes and gives what fal's does."""
    assert {name: str(inspect.signature(getattr(fal, name))) for name in fal.__all__} == SIGNATURES


@pytest.mark.parametrize(
    ("base", "key", "url"),
    [
        ("/mnt/node s3://bucket/caches", "flux/2", "/mnt/node/flux/2 s3://bucket/caches/flux/2"),
        ("s3://bucket/caches", "mymodel/v1", "s3://bucket/caches/mymodel/v1"),
        ("s3://bucket/caches/", "/flux/2/", "s3://bucket/caches/flux/2"),
        ("memory://", "flux/2", "memory://flux/2"),
        ("file:///", "flux/2", "file:///flux/2"),
        (None, "flux/2", "file:///data/inductor-caches/flux/2"),
    ],
)
def test_key_is_a_cache_below_the_url(base: str | None, key: str, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A key lies below `MEGACACHE_URL`, and without it below fal's own folder."""
    monkeypatch.delenv("MEGACACHE_URL", raising=False)
    if base is not None:
        monkeypatch.setenv("MEGACACHE_URL", base)
    assert fal._cache(key)._call(1, Stopwatch()).shown == url


def test_folder_that_a_program_sets_is_obeyed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A program that moves fal's shared folder moves the store."""
    monkeypatch.delenv("MEGACACHE_URL", raising=False)
    monkeypatch.setattr(fal, "GLOBAL_INDUCTOR_CACHES_DIR", tmp_path)
    assert fal._cache("flux/2")._call(1, Stopwatch()).shown == f"file://{tmp_path}/flux/2"


def test_bad_setting_is_reported_and_not_raised(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A variable of megacache that means nothing is logged, and the program goes on cold."""
    monkeypatch.setenv("MEGACACHE_DISABLE", "perhaps")
    with caplog.at_level(logging.WARNING, "megacache"), fal.synchronized_inductor_cache("mymodel/v1"):
        pass
    assert caplog.text.count("MEGACACHE_DISABLE='perhaps'") >= 2


@pytest.mark.parametrize(
    ("script", "name"),
    [
        ("echo 'NVIDIA H100 80GB HBM3'", "H100"),
        ("echo 'NVIDIA A100-SXM4-80GB'; echo 'NVIDIA H200'", "A100"),
        ("echo 'NVIDIA GeForce RTX 4090'", "GeForce"),
        ("echo 'Tesla T4'", "UNKNOWN"),
        ("echo 'NVIDIA-SMI has failed: cannot communicate with the NVIDIA driver'; exit 9", "UNKNOWN"),
        (None, "UNKNOWN"),
    ],
)
def test_gpu_type(script: str | None, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The type of the GPU is the word after "NVIDIA", as fal finds it, or UNKNOWN where there is none."""
    if script is not None:
        program = tmp_path / "nvidia-smi"
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert fal.get_gpu_type() == name


def test_import_is_cheap() -> None:
    """Importing the module loads neither PyTorch nor fsspec."""
    code = "import json, sys, megacache.compat.fal; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert not {name.partition(".")[0] for name in json.loads(loaded.stdout)} & FOREIGN
