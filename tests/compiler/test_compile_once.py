"""The compiler of the tests gives what the real one would give, and asks that one once."""

import ctypes
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.kit import compile_once

SOURCE = 'extern "C" int answer() { int unused; return ANSWER; }'


@pytest.fixture
def counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Put the compiler in front of the real one, which notes that it is asked, and give the notes."""
    real, asked = shutil.which("g++"), tmp_path / "asked"
    if real is None:
        pytest.skip("there is no g++")
    below = tmp_path / "below" / "g++"
    below.parent.mkdir()
    below.write_text(f'#!/bin/sh\necho >>{asked}\nexec {real} "$@"\n')
    below.chmod(0o755)
    asked.touch()
    monkeypatch.setenv("PATH", str(below.parent), prepend=os.pathsep)
    folder = compile_once.install(tmp_path / "above", tmp_path / "kept")
    monkeypatch.setenv("PATH", str(folder), prepend=os.pathsep)
    return asked


def library(folder: Path, source: str = SOURCE, answer: str = "42") -> "subprocess.CompletedProcess[str]":
    """Compile a library in a folder of its own."""
    folder.mkdir()
    (folder / "source.cpp").write_text(source)
    command = ["g++", f"-DANSWER={answer}", "-Wall", "-shared", "-fPIC", str(folder / "source.cpp")]
    return subprocess.run([*command, "-o", str(folder / "it.so")], capture_output=True, text=True, check=False)


def answer(folder: Path) -> int:
    """Load the library and call it."""
    return int(ctypes.CDLL(str(folder / "it.so")).answer())


def test_source_is_compiled_once(counted: Path, tmp_path: Path) -> None:
    """In another folder it gives the same function and warning, and a library that differs as real ones do."""
    first, second = (tmp_path / name for name in ("first", "second"))
    told = [library(folder).stderr for folder in (first, second)]
    assert counted.read_text().count("\n") == 1
    assert told[0] == told[1]
    assert "unused" in told[0]
    assert answer(first) == answer(second) == 42
    assert os.access(second / "it.so", os.X_OK)
    assert (first / "it.so").read_bytes() != (second / "it.so").read_bytes()


def test_what_differs_is_compiled(counted: Path, tmp_path: Path) -> None:
    """Another word of the command, or another character of the source, is compiled, and gives its own answer."""
    library(tmp_path / "first")
    library(tmp_path / "word", answer="43")
    library(tmp_path / "source", SOURCE.replace("ANSWER", "ANSWER + 2"))
    assert counted.read_text().count("\n") == 3
    assert [answer(tmp_path / name) for name in ("first", "word", "source")] == [42, 43, 44]


def test_failure_is_not_kept(counted: Path, tmp_path: Path) -> None:
    """What does not compile fails each time as it does for the real compiler."""
    failed = [library(tmp_path / name, "no source") for name in ("first", "second")]
    assert [one.returncode for one in failed] == [1, 1]
    assert all("error" in one.stderr for one in failed)
    assert counted.read_text().count("\n") == 2


def test_other_commands_go_to_the_compiler(counted: Path) -> None:
    """A command that compiles nothing is that of the real one."""
    told = subprocess.run(["g++", "--version"], capture_output=True, text=True, check=True).stdout
    assert "Free Software Foundation" in told
    assert counted.read_text().count("\n") == 1
