"""Count what compiles: scripts that stand before ptxas and the C compilers, write down each run, and let it go on."""

import os
import shlex
import shutil
from importlib.util import find_spec
from pathlib import Path

PTXAS = ("ptxas", "ptxas-blackwell")
C_COMPILERS = ("gcc", "g++", "cc", "c++", "clang", "clang++")
LOG = "MEGACACHE_TEST_COMMANDS"
_NOTED = '#!/bin/sh\necho "{name} $*" >>"$' + LOG + '"\n'
_MAKES = frozenset({"-o", "-c", "-E", "-S", "-shared"})


def counted(folder: Path) -> Path:
    """Make a folder for PATH in which the C compilers that this machine has are counted."""
    folder.mkdir()
    for name in C_COMPILERS:
        if real := shutil.which(name):
            _script(folder / name, f'exec {shlex.quote(real)} "$@"')
    return folder


def broken(folder: Path) -> Path:
    """Make a folder for PATH in which every C compiler fails, as on a host without one."""
    folder.mkdir()
    for name in C_COMPILERS:
        _script(folder / name, "exit 127")
    return folder


def counted_ptxas(folder: Path) -> dict[str, str]:
    """Make a folder in which Triton's own ptxas is counted, and give the variables that make Triton use it."""
    folder.mkdir()
    spec = find_spec("triton")
    assert spec
    assert spec.origin
    for name in PTXAS:
        real = Path(spec.origin).parent / "backends/nvidia/bin" / name
        if real.exists():
            _script(folder / name, f'exec {shlex.quote(str(real))} "$@"')
    return {f"TRITON_{path.name.upper().replace('-', '_')}_PATH": str(path) for path in folder.iterdir()}


def made(log: Path) -> tuple[str, ...]:
    """Give the commands that made something, and leave out those that asked for a version, or what would be done."""
    lines = log.read_text().splitlines() if log.exists() else []
    commands = [(line, set(line.split())) for line in lines]
    return tuple(line for line, words in commands if words & _MAKES and "-###" not in words)


def _script(path: Path, last: str) -> None:
    path.write_text(f"{_NOTED.format(name=path.name)}{last}\n")
    path.chmod(0o755)


def search_path(folder: Path) -> str:
    """Put a folder before all others that programs are looked for in."""
    return os.pathsep.join([str(folder), os.environ["PATH"]])
