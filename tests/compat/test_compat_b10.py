"""A program written for b10-transfer runs with its import line changed, and finds what it relies on."""

import inspect
import json
import logging
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import pytest

from megacache import MegacacheError, PublishResult, PublishStatus, WarmResult, WarmStatus
from megacache.compat import _variables, b10
from megacache.compat._variables import MB, REPLACED, Variables
from megacache.compat.b10 import OperationStatus
from megacache.errors import AccessError, SettingsError, UnavailableError
from tests.kit.builders import artifact, environment
from tests.kit.processes import REPOSITORY, Processes, step
from tests.kit.servers import free_port
from tests.kit.torchless import Compiler
from tests.test_package import FOREIGN

SIGNATURES = {
    "clear_local_cache": "() -> bool",
    "get_b10_logger": "(name: str) -> logging.Logger",
    "get_cache_info": "() -> dict[str, typing.Any]",
    "list_available_caches": "() -> dict[str, typing.Any]",
    "load_compile_cache": "() -> megacache.compat.b10.OperationStatus",
    "save_compile_cache": "() -> megacache.compat.b10.OperationStatus",
    "transfer": "(source: str, dest: str) -> megacache.compat.b10.OperationStatus",
}
"""Those of b10-transfer 0.4.1, but for `save_vllm_compile_cache`: a vLLM server publishes by itself."""
STATUSES = {"SUCCESS": 1, "ERROR": 2, "DOES_NOT_EXIST": 3, "SKIPPED": 4}
NAMES = {*SIGNATURES, "OperationStatus", "CacheError", "CacheValidationError", "CacheOperationInterrupted"}
ENTRY = {"filename", "environment_key", "size_mb", "is_current_environment", "created_time"}
VARIABLES = {
    "B10FS_CACHE_DIR",
    "BASETEN_FS_ENABLED",
    "MAX_CACHE_SIZE_MB",
    "MAX_CACHE_SIZE_CAP_MB",
    "MAX_CONCURRENT_SAVES",
    "MEGACACHE_URL",
    "MIN_B10FS_SPACE_MB",
    "MIN_LOCAL_SPACE_MB",
    *REPLACED,
}


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    """Take all variables out of the environment."""
    for name in VARIABLES:
        monkeypatch.delenv(name, raising=False)
    return monkeypatch


def test_quick_start_starts_warm(processes: Processes, tmp_path: Path) -> None:
    """The quick start compiles and saves in one process, and in the next it loads and hits, bit for bit.

    A save that is larger than the limit, or for which there is too little space, saves nothing and is an error.
    """
    volume = tmp_path / "volume"
    there: dict[str, str | None] = {
        "MEGACACHE_URL": None,
        "BASETEN_FS_ENABLED": "1",
        "B10FS_CACHE_DIR": str(volume),
        "TMPDIR": str(tmp_path),
    }
    _, too_large, too_full, cold, again = processes.run(
        step("run", model="doubling"),
        step("b10", name="save_compile_cache", variables={"MAX_CACHE_SIZE_MB": "0"}),
        step("b10", name="save_compile_cache", variables={"MIN_B10FS_SPACE_MB": "1000000000"}),
        step("migrated", program="b10_model"),
        step("b10", name="save_compile_cache"),
        environment=there,
    )
    assert (too_large["answer"], too_full["answer"]) == ("ERROR", "ERROR")
    assert (cold["loaded"], cold["saved"], again["answer"]) == ("DOES_NOT_EXIST", "SUCCESS", "SKIPPED")
    assert cold["fx_miss"] > 0
    assert len(list(volume.glob("*/*/bundles/*.msgpack"))) == 1
    folder = processes.new_folder()
    warm, loaded, info, caches, cleared, after, reloaded = (
        answer.get("answer", answer)
        for answer in processes.run(
            step("migrated", program="b10_model"),
            step("b10", name="load_compile_cache"),
            step("b10", name="get_cache_info"),
            step("b10", name="list_available_caches"),
            step("b10", name="clear_local_cache"),
            step("b10", name="get_cache_info"),
            step("b10", name="load_compile_cache"),
            environment=there,
            folder=folder,
        )
    )
    assert (warm["loaded"], warm["saved"], warm["digest"]) == ("SUCCESS", None, cold["digest"])
    assert (warm["fx_miss"], warm["aot_miss"]) == (0, 0)
    assert (loaded, cleared, reloaded) == ("SKIPPED", True, "SUCCESS")
    check_descriptions(info, caches, after, volume)


def check_descriptions(info: Any, caches: Any, after: Any, at: Path) -> None:
    """Compare what is told of the local folder and the store with b10-transfer's dictionaries, and with the truth."""
    size = sum(path.stat().st_size for path in at.rglob("*") if path.is_file()) / MB
    key = info["environment_key"]
    (entry,) = caches.pop("caches")
    assert entry.keys() == ENTRY
    assert (entry["environment_key"], entry["is_current_environment"], entry["size_mb"]) == (key, True, size)
    assert (at / entry["filename"]).is_dir()
    assert time.time() - 300 < entry["created_time"] < time.time() + 1
    assert caches == {
        "current_environment": key,
        "total_caches": 1,
        "current_cache_exists": True,
        "b10fs_enabled": True,
    }
    remote = {"environment_key": key, "b10fs_enabled": True, "b10fs_cache_exists": True, "b10fs_cache_size_mb": size}
    assert info.pop("local_cache_size_mb") > 0
    assert info == {**remote, "local_cache_exists": True}
    assert after == {**remote, "local_cache_exists": False}


def test_store_that_is_down_is_an_error(processes: Processes) -> None:
    """With a store that does not answer, the quick start runs its model eagerly; nothing raises."""
    nowhere: dict[str, str | None] = {
        "MEGACACHE_URL": "s3://bucket/flux/v1",
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{free_port()}",
        "AWS_ACCESS_KEY_ID": "key",
        "AWS_SECRET_ACCESS_KEY": "secret",
    }
    ran, nothing, caches, info, _, saved = processes.run(
        step("migrated", program="b10_model"),
        step("b10", name="save_compile_cache"),
        step("b10", name="list_available_caches"),
        step("b10", name="get_cache_info"),
        step("run", model="doubling"),
        step("b10", name="save_compile_cache"),
        environment=nowhere,
    )
    assert (ran["loaded"], ran["saved"], ran["fx_miss"]) == ("ERROR", None, 0)
    assert (nothing["answer"], saved["answer"]) == ("SKIPPED", "ERROR")
    assert (caches["answer"]["caches"], caches["answer"]["total_caches"]) == ([], 0)
    assert "s3://bucket/flux/v1" in caches["answer"]["error"]
    assert info["answer"]["b10fs_cache_exists"] is False


def test_names_are_those_of_b10_transfer() -> None:
    """Every public name is as in b10-transfer: what a function takes and gives, and the value of each status."""
    assert set(b10.__all__) == NAMES
    assert {name: str(inspect.signature(getattr(b10, name))) for name in SIGNATURES} == SIGNATURES
    assert {status.name: status.value for status in OperationStatus} == STATUSES
    for name in NAMES - SIGNATURES.keys() - {"OperationStatus"}:
        assert issubclass(getattr(b10, name), MegacacheError)
    assert issubclass(b10.CacheValidationError, b10.CacheError)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (WarmStatus.LOADED, OperationStatus.SUCCESS),
        (WarmStatus.MISS, OperationStatus.DOES_NOT_EXIST),
        (WarmStatus.DISABLED, OperationStatus.SKIPPED),
        (WarmStatus.UNTRUSTED, OperationStatus.ERROR),
        (WarmStatus.UNAVAILABLE, OperationStatus.ERROR),
    ],
)
def test_status_of_a_load(status: WarmStatus, told: OperationStatus) -> None:
    """Each status of a warm start has one of b10-transfer's; only a fault is an error."""
    assert b10._status_of_load(WarmResult(url="", status=status)) is told


@pytest.mark.parametrize("status", PublishStatus)
def test_status_of_a_save(status: PublishStatus) -> None:
    """Each status of a publication has one of b10-transfer's; what saves nothing and is no fault is skipped."""
    told = {
        PublishStatus.PUBLISHED: OperationStatus.SUCCESS,
        PublishStatus.TOO_LARGE: OperationStatus.ERROR,
        PublishStatus.UNAVAILABLE: OperationStatus.ERROR,
    }.get(status, OperationStatus.SKIPPED)
    error = UnavailableError("down") if status is PublishStatus.UNAVAILABLE else None
    assert b10._status_of_save(PublishResult(url="", status=status, error=error)) is told


def test_refused_save_is_an_error() -> None:
    """A store that refuses the credentials is an error, unlike a process that was told to write nothing."""
    refused = PublishResult(url="", status=PublishStatus.READ_ONLY, error=AccessError("no"))
    assert b10._status_of_save(refused) is OperationStatus.ERROR


@pytest.mark.parametrize(
    ("variables", "url"),
    [
        ({}, None),
        ({"BASETEN_FS_ENABLED": "0", "B10FS_CACHE_DIR": "/cache/model/mine"}, None),
        ({"BASETEN_FS_ENABLED": "1"}, "file:///cache/model/compile_cache"),
        ({"BASETEN_FS_ENABLED": "True", "B10FS_CACHE_DIR": "/cache/model/mine"}, "file:///cache/model/mine"),
        ({"BASETEN_FS_ENABLED": "0", "MEGACACHE_URL": "s3://bucket/flux/v1"}, "s3://bucket/flux/v1"),
    ],
)
def test_place_of_the_store(variables: dict[str, str], url: str | None, bare: pytest.MonkeyPatch) -> None:
    """The store is `MEGACACHE_URL`, or else the folder on the shared volume, if the volume is said to be there."""
    for name, value in variables.items():
        bare.setenv(name, value)
    assert Variables.read().url == url


@pytest.mark.parametrize(
    ("variables", "limits"),
    [
        ({}, (1024, 0, 0)),
        ({"MAX_CACHE_SIZE_MB": "10"}, (10, 0, 0)),
        ({"MAX_CACHE_SIZE_MB": "5000"}, (1024, 0, 0)),
        ({"MAX_CACHE_SIZE_MB": "5000", "MAX_CACHE_SIZE_CAP_MB": "4096"}, (4096, 0, 0)),
        ({"MAX_CONCURRENT_SAVES": "5", "MAX_CACHE_SIZE_MB": "10"}, (10, 50, 0)),
        ({"MAX_CONCURRENT_SAVES": "500", "MAX_CACHE_SIZE_MB": "10"}, (10, 1000, 0)),
        ({"MAX_CONCURRENT_SAVES": "5", "MAX_CACHE_SIZE_MB": "10", "MIN_B10FS_SPACE_MB": "70"}, (10, 70, 0)),
        ({"MIN_LOCAL_SPACE_MB": "7"}, (1024, 0, 7)),
    ],
)
def test_limits(variables: dict[str, str], limits: tuple[int, int, int], bare: pytest.MonkeyPatch) -> None:
    """The limits of a save and the free space that is asked for are those that the variables give, in megabytes."""
    for name, value in variables.items():
        bare.setenv(name, value)
    found = Variables.read()
    assert (found.max_bytes, found.store_space, found.local_space) == tuple(limit * MB for limit in limits)


@pytest.mark.parametrize("name", ["BASETEN_FS_ENABLED", "MAX_CACHE_SIZE_MB", "MIN_LOCAL_SPACE_MB"])
def test_bad_value_is_an_error(name: str, bare: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """A value that means nothing is told with its variable; a load and a save end as errors."""
    bare.setenv(name, "much")
    with pytest.raises(SettingsError, match=name):
        Variables.read()
    with caplog.at_level(logging.WARNING, "megacache"):
        assert (b10.load_compile_cache(), b10.save_compile_cache()) == (OperationStatus.ERROR, OperationStatus.ERROR)
    assert caplog.text.count(f"{name}='much'") == 2


@pytest.mark.parametrize("name", sorted(REPLACED))
def test_variable_without_meaning_is_told_once(
    name: str, bare: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A variable that means nothing here is accepted, with one warning that says what to do instead."""
    bare.setenv(name, "5")
    with caplog.at_level(logging.WARNING, "megacache"):
        Variables.read()
        Variables.read()
    assert caplog.messages == [f"{name} has no meaning for megacache: {REPLACED[name]}"]


def test_every_variable_is_explained() -> None:
    """The document on migrating names every variable that is read."""
    document = (REPOSITORY / "examples" / "guides" / "migrating.md").read_text()
    assert {name for name in VARIABLES if f"`{name}`" not in document} == set()


def test_no_store_is_an_error(bare: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Without a volume and without a URL, a load and a save are errors, as there, and say what to set."""
    del bare
    with caplog.at_level(logging.WARNING, "megacache"):
        assert (b10.load_compile_cache(), b10.save_compile_cache()) == (OperationStatus.ERROR, OperationStatus.ERROR)
    assert caplog.text.count("set MEGACACHE_URL, or BASETEN_FS_ENABLED=1") == 2


def test_full_disk_is_an_error(bare: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Where less is free than was asked for, nothing is loaded."""
    bare.setenv("MEGACACHE_URL", f"file://{tmp_path}/store")
    bare.setenv("MIN_LOCAL_SPACE_MB", "1000000000")
    with caplog.at_level(logging.WARNING, "megacache"):
        assert b10.load_compile_cache() is OperationStatus.ERROR
    assert "1000000000 are asked for" in caplog.text


def test_stock_is_that_of_the_last_place(compiler: Compiler, bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Of several places the last is the cache: it is listed, and its disk has to have room."""
    near, last = tmp_path / "near", tmp_path / "last"
    bare.setenv("MEGACACHE_URL", f"{near} {last}")
    bare.setenv("MIN_B10FS_SPACE_MB", "1")
    compiler.compile(artifact("f1"))
    assert b10.save_compile_cache() is OperationStatus.SUCCESS
    assert (near.exists(), last.exists()) == (False, True)
    bare.setattr(b10, "environment", environment)
    assert b10.list_available_caches()["current_cache_exists"]
    assert b10.load_compile_cache() is OperationStatus.SUCCESS


def test_local_cache_is_cleared(bare: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The folder is deleted with all in it; one that is not there is no fault."""
    folder = tmp_path / "inductor"
    (folder / "ab").mkdir(parents=True)
    (folder / "ab" / "kernel.so").touch()
    bare.setenv("TORCHINDUCTOR_CACHE_DIR", str(folder))
    assert (b10.clear_local_cache(), folder.exists(), b10.clear_local_cache()) == (True, False, True)


def test_no_other_folder_is_cleared(bare: pytest.MonkeyPatch) -> None:
    """A folder that is not below one of temporary or cached files is left alone, and so is such a folder itself."""
    bare.setattr(tempfile, "tempdir", "/tmp")
    with tempfile.TemporaryDirectory(dir="/var/tmp") as elsewhere:
        bare.setenv("TORCHINDUCTOR_CACHE_DIR", elsewhere)
        assert b10.clear_local_cache() is False
        assert Path(elsewhere).is_dir()
    assert not any(map(_variables.clearable, map(Path, ("/", "/tmp", "/tmp/..", "/cache", "/home"))))


def test_default_folder_is_pytorchs(bare: pytest.MonkeyPatch) -> None:
    """Without a variable, the local folder is the one that PyTorch would choose."""
    from torch._inductor.runtime.cache_dir_utils import default_cache_dir

    bare.delenv("TORCHINDUCTOR_CACHE_DIR", raising=False)
    assert str(_variables.torch_folder()) == default_cache_dir()


def test_file_is_transferred(tmp_path: Path) -> None:
    """A file is copied into a folder that is made; one that is not there is an error."""
    source, target = tmp_path / "source", tmp_path / "new" / "target"
    source.write_text("content")
    assert b10.transfer(str(source), str(target)) is OperationStatus.SUCCESS
    assert target.read_text() == "content"
    assert b10.transfer(str(tmp_path / "nothing"), str(target)) is OperationStatus.ERROR


def test_logger_shows_what_a_program_logs(name: str) -> None:
    """The logger writes from level INFO on, by one handler however often it is asked for."""
    logger = b10.get_b10_logger(name)
    assert b10.get_b10_logger(name) is logger
    assert (logger.level, len(logger.handlers), logger.propagate) == (logging.INFO, 1, False)


def test_import_is_cheap() -> None:
    """Importing the module loads neither PyTorch nor fsspec."""
    code = "import json, sys, megacache.compat.b10; print(json.dumps(sorted(sys.modules)))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    assert not {name.partition(".")[0] for name in json.loads(loaded.stdout)} & FOREIGN


def test_guide_tells_of_every_variable() -> None:
    """The table for those who come from b10-transfer has each variable that is read, and those without a meaning."""
    text = (REPOSITORY / "examples" / "guides" / "migrating.md").read_text()
    rows = [
        set(re.findall(r"`([A-Z][A-Z0-9_]+)`", line.split("|")[1])) for line in text.splitlines() if line[:3] == "| `"
    ]
    read = set(re.findall(r"[\"']([A-Z][A-Z0-9]*_[A-Z0-9_]+)[\"']", inspect.getsource(_variables)))
    assert set.union(*rows) == read
    assert rows[-1] == REPLACED.keys()
    assert read == VARIABLES - {"MEGACACHE_URL"} | {"TORCHINDUCTOR_CACHE_DIR"}
