"""Extensions in C++, as programs have them that know nothing of megacache."""

import ctypes
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_INLINE = """
#include <pybind11/pybind11.h>
int answer() { return 42; }
PYBIND11_MODULE(TORCH_EXTENSION_NAME, module) { module.def("answer", answer); }
"""


def inline(source: str = _INLINE, *, module: bool = True) -> dict[str, Any]:
    """Build what stands in this program, and answer with what its function `answer` gives."""
    from torch.utils import cpp_extension

    torchs: Any = cpp_extension  # half typed
    # PyTorch's own headers would take a minute to compile.
    built = torchs.load_inline("answering", source, no_implicit_headers=True, is_python_module=module)
    return {"answer": built.answer() if module else ctypes.CDLL(built).answer()}


def outside(path: str, flags: Sequence[str] = ()) -> dict[str, Any]:
    """Build what stands in a file, and answer as `inline` does."""
    from torch.utils.cpp_extension import load

    return {"answer": ctypes.CDLL(load("answering", [path], extra_ldflags=[*flags], is_python_module=False)).answer()}


def compilers(folder: Path) -> Path:
    """Make a folder for the front of PATH whose C++ compilers note each command in the file that is given."""
    commands = folder / "commands"
    for name in ("c++", "g++"):
        script = folder / name
        script.parent.mkdir(exist_ok=True)
        script.write_text(f'#!/bin/sh\necho "$@" >> {commands}\nexec {shutil.which(name)} "$@"\n')
        script.chmod(0o755)
    return commands


if __name__ == "__main__":
    print(inline()["answer"], *sys.argv[1:])  # noqa: T201 - for those who started it
