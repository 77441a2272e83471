"""Count the kernels for a GPU that were compiled, by counting the runs of ptxas in whichever process.

Files do not tell: a kernel that comes out of a cache is written to Triton's folder anew, by PyTorch.
"""

import importlib.util
import os
import shlex
from collections.abc import Mapping
from pathlib import Path

RUNS = "BENCHMARK_PTXAS_RUNS"
"""The variable that names a file, which takes a line for each run."""
_PROGRAMS = {"ptxas": "TRITON_PTXAS_PATH", "ptxas-blackwell": "TRITON_PTXAS_BLACKWELL_PATH"}
"""What Triton may start, and the variables by which it finds it."""
_SCRIPT = """\
#!/bin/sh
case " $* " in *" --version "*) ;; *) echo run >>"${variable}" ;; esac
exec {program} "$@"
"""


def wrapped(folder: Path) -> Mapping[str, str]:
    """Write scripts that count and do what they stand for, and give the variables that lead Triton to them."""
    found = {name: _program(name, variable) for name, variable in _PROGRAMS.items()}
    return {_PROGRAMS[name]: _wrap(folder / name, program) for name, program in found.items() if program}


def runs() -> int:
    """Tell how often one was started for this process or for one that it started."""
    log = Path(os.environ.get(RUNS, os.devnull))
    return len(log.read_text().splitlines()) if log.exists() else 0


def _wrap(script: Path, program: Path) -> str:
    script.write_text(_SCRIPT.format(variable=RUNS, program=shlex.quote(str(program))))
    script.chmod(0o755)
    return str(script)


def _program(name: str, variable: str) -> Path | None:
    """Find a program where PyTorch and Triton would."""
    named = [Path(os.environ[variable])] if variable in os.environ else []
    own = [_package("torch", "bin", name), _package("triton", "backends", "nvidia", "bin", name)]
    return next((path for path in [*named, *own] if path and os.access(path, os.X_OK)), None)


def _package(name: str, *parts: str) -> Path | None:
    spec = importlib.util.find_spec(name)
    return Path(spec.origin).parent.joinpath(*parts) if spec and spec.origin else None
