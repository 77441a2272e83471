"""What the compiler uses of this host's processor is known, or said not to be."""

import platform
import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from megacache._compiler import facts, processors
from megacache._compiler.processors import cpu_flags, cpu_target
from tests.kit.processors import lesser_compiler

_MACRO = re.compile(r"#define __(\w+?)_* 1")
_OTHERWISE = {"crc32": "sse42", "lahfsahf": "sahf", "gcchavesynccompareandswap16": "cx16"}
_NO_EXTENSION = re.compile(r"fpfastfma|tune|(?:znver|[a-z]+lake)")

pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="GCC tells all of it on x86 alone")


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """Ask anew in each test."""
    cpu_target.cache_clear()
    yield
    cpu_target.cache_clear()


def _macros(*options: str) -> set[str]:
    command = ["g++", *options, "-dM", "-E", "-x", "c++", "/dev/null"]
    told = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    names = {name.lower().replace("_", "") for name in _MACRO.findall(told) if name.isupper() or name[0].isupper()}
    return {_OTHERWISE.get(name, name) for name in names}


def test_every_extension_that_the_compiler_announces_is_named() -> None:
    """For each extension GCC defines a macro; those that `native` adds to plain x86-64 are all named, but for few."""
    added = {name for name in _macros("-march=native") - _macros("-march=x86-64") if not _NO_EXTENSION.match(name)}
    assert len(added) > 10
    assert added - processors._UNASKED <= set(cpu_target("g++").split())


def test_extension_that_is_not_there_is_not_named(tmp_path: Path) -> None:
    """Of a processor that lacks two of this one's extensions the others are named."""
    compiler = lesser_compiler(tmp_path / "bin", "fma", "sse4.2") / "g++"
    assert set(cpu_target("g++").split()) - set(cpu_target(str(compiler)).split()) == {"fma", "sse42"}


def test_kernel_tells_what_the_compiler_would_use() -> None:
    """Without a compiler, the kernel's flags give the same names, those that GCC calls otherwise among them.

    A kernel may hide an extension that GCC sees, but not one that each processor of the last ten years has.
    """
    seen, told = set(cpu_target("g++").split()), set(cpu_target(None).split())
    assert {"sse3", "sse42", "pclmul", "bmi", "abm", "lzcnt", "sahf", "fma"} & seen <= told
    assert set(cpu_flags().split()) & {"avx2", "fma", "bmi2"} == told & {"avx2", "fma", "bmi2"}


@pytest.mark.parametrize("command", ["no-such-compiler", "false", "true", "'unclosed"])
def test_compiler_that_does_not_answer(command: str) -> None:
    """It is not known what a compiler uses that is not there, fails, or says nothing."""
    assert cpu_target(command) == ""


def test_other_processors_and_compilers(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not known, either, of another architecture, and of a compiler that is not GCC."""
    assert facts._cpu_target("clang version 19.1.7") == ""
    monkeypatch.setattr(platform, "machine", lambda: "aarch64")
    assert cpu_target("g++") == cpu_target(None) == ""
