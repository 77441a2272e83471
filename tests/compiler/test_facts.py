"""A fact that is only recorded, or only warns, never costs the start."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from megacache import _compiler
from megacache._bundle import Artifact
from megacache._compiler import facts, state
from tests.kit.processes import Processes, run_code, step


def fail(*_: object) -> str:
    """Fail as a private name does that a build of PyTorch lacks."""
    msg = "module 'torch._C' has no attribute '_asked_for'"
    raise AttributeError(msg)


def test_everything_is_read_here() -> None:
    """On this machine no fact is missing."""
    assert dict(_compiler.current_environment().unread) == {}


@pytest.mark.parametrize(
    ("name", "reader"),
    [
        ("threads", "_threads"),
        ("driver", "_driver_version"),
        ("compiler", "compiler_version"),
        ("cpu_flags", "cpu_flags"),
        ("float32_matmul_precision", "_matmul_precision"),
        ("default_dtype", "_default_dtype"),
        ("inductor_config", "_changed_config"),
    ],
)
def test_recorded_fact_that_cannot_be_read(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, name: str, reader: str
) -> None:
    """It is empty and named, the others are as ever, and the fingerprint is the same."""
    whole = _compiler.current_environment()
    monkeypatch.setattr(facts, reader, fail)
    with caplog.at_level(logging.DEBUG, "megacache"):
        found = _compiler.current_environment()
    assert dict(found.recorded) == {**whole.recorded, name: ""}
    assert list(found.unread) == [name]
    assert "_asked_for" in found.unread[name]
    assert found == whole
    assert f"name={name}" in caplog.text


SILENT = """
import sys
import torch._dynamo
import megacache
result = megacache.warm(sys.argv[1], timeout=3)
print(result.status, result.warnings)
print(sorted(megacache.environment().unread), megacache.publish(sys.argv[1], timeout=3).status)
"""


def test_compiler_that_does_not_answer_is_not_waited_for(
    tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler on a disk that hangs costs the compiled files: graphs are loaded within the deadline."""
    url = str(tmp_path / "store")
    processes.run(step("run", model="inference"), step("publish", url=url))
    compiler = tmp_path / "g++"
    compiler.write_text("#!/bin/sh\nexec sleep 60 2>/dev/null\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "folder"))
    done = run_code(SILENT, url)
    warmed, rest = done.stdout.splitlines()
    assert warmed.startswith("loaded"), done.stderr[-2000:]
    assert "compiled files are not used: the C++ compiler does not answer" in warmed
    assert rest == "['compiler'] empty"


IMPORTS = """
import sys, threading
from megacache import _compiler

elsewhere, own = [], threading.get_ident()


def look(event, arguments):
    if event == "import" and arguments[0].startswith("torch") and threading.get_ident() != own:
        elsewhere.append(arguments[0])


sys.addaudithook(look)
getattr(_compiler, sys.argv[1])()
print(elsewhere)
"""


@pytest.mark.parametrize("reader", ["toolchain", "current_environment"])
def test_thread_that_asks_the_compiler_imports_nothing_of_torch(reader: str) -> None:
    """Its seconds are for the C++ compiler, and PyTorch's modules may not be imported by two threads at once."""
    done = run_code(IMPORTS, reader)
    assert done.stdout.strip() == "[]", done.stdout + done.stderr[-2000:]


def test_driver_that_cannot_be_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU without CUDA's driver library is an error of that one fact; a CPU has no driver."""
    cuda: Any = SimpleNamespace(type="cuda")
    monkeypatch.setattr("ctypes.CDLL", fail)
    with pytest.raises(AttributeError, match="_asked_for"):
        facts._driver_version(cuda)
    assert facts._driver_version(None) == ""


def test_only_known_variables_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A name that begins like one of the compiler's is not enough: who may read a store may read what is recorded."""
    for name, value in {
        "TRITON_INTERPRET": "0",
        "TORCHINDUCTOR_MAX_AUTOTUNE": "1",
        "TORCHINDUCTOR_CPP_MARCH": "/home/me/march",
        "TRITON_API_KEY": "secret",
        "TORCHINDUCTOR_REDIS_HOST": "cache.internal",
        "TORCH_COMPILE_TOKEN": "secret",
        "TORCH_LOGS": "dynamo",
    }.items():
        monkeypatch.setenv(name, value)
    found = {name for name in _compiler.current_environment().recorded if name.isupper()}
    assert found == {"TRITON_INTERPRET", "TORCHINDUCTOR_MAX_AUTOTUNE"}


@pytest.mark.parametrize("check", ["_compiled_before", "_autograd_cache_off", "_precompile_on"])
def test_warning_that_cannot_be_checked(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """A warm start goes on without it."""
    monkeypatch.setattr(state, check, fail)
    assert all("_asked_for" not in warning for warning in _compiler.loading_warnings())


@pytest.mark.parametrize("check", ["_graphs_without_entry", "_bundling_off", "_secrets_written", "_hidden_graphs"])
def test_publication_does_without_a_warning(monkeypatch: pytest.MonkeyPatch, check: str) -> None:
    """So does a publication, which still gives the warnings that it can."""
    monkeypatch.setattr(state, check, fail)
    precompiled = Artifact(kind="precompile", key="a", content=b"")
    assert "precompile artifacts" in _compiler.recording_warnings([precompiled], apart=False)[-1]
    _compiler.recording_warnings((), apart=False)
