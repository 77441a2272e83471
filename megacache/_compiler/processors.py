"""What this host's processor can do: as its kernel tells it, and as the C++ compiler uses it with `-march=native`."""

import functools
import os
import platform
import re
import shlex
import subprocess
from pathlib import Path

_CPUINFO = Path("/proc/cpuinfo")
_SECONDS = 10.0
_OPTION = re.compile(r"(?<=\s)-m(?!no-)([a-z0-9][a-z0-9.-]*)(?=\s)")
"""What GCC's driver turns `native` into: an option for each extension, `-mno-…` for those that are not there."""
_UNASKED = frozenset({"hreset", "kl", "ptwrite", "rdrnd", "rdseed", "shstk", "uintr", "widekl"})
"""Extensions that a compiler uses only where a program asks for them, and that kernels do not always tell of."""
_NAMES = {
    "3dnowprefetch": ("prfchw",),
    "abm": ("abm", "lzcnt"),
    "bmi1": ("bmi",),
    "lahf_lm": ("sahf",),
    "pclmulqdq": ("pclmul",),
    "pni": ("sse3",),
    "sha_ni": ("sha",),
    "sse4_2": ("sse42", "crc32"),
}
"""Names of GCC's for what the kernel calls otherwise."""


def cpu_flags() -> str:
    """Give the processor's flags as the kernel tells them."""
    if not _CPUINFO.is_file():
        return ""
    # x86 tells them under one name, ARM under the other.
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", _CPUINFO.read_text(), re.MULTILINE)
    return match[1] if match else ""


@functools.cache
def cpu_target(compiler: str | None) -> str:
    """Name the extensions that GCC uses when it compiles for this host; those of the kernel where there is no compiler.

    GCC asks the processor itself, and may use what the kernel does not tell of. It is empty where that is not known: on
    other processors than x86, of which GCC's options do not tell all, and where the compiler does not answer.
    """
    if platform.machine() != "x86_64":
        return ""
    found = _of_kernel() if compiler is None else _of_compiler(compiler)
    return " ".join(sorted(found - _UNASKED))


def _of_compiler(compiler: str) -> set[str]:
    # The driver prints what it would run, and runs nothing: a few milliseconds.
    try:
        told = subprocess.run(
            [*shlex.split(compiler), "-march=native", "-###", "-E", "-x", "c++", os.devnull],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=True,
        ).stderr
    except (OSError, ValueError, subprocess.SubprocessError):
        return set()
    compiling = "\n".join(line for line in told.splitlines() if "cc1plus " in line)
    return {_plain(name) for name in _OPTION.findall(compiling)}


def _of_kernel() -> set[str]:
    return {name for flag in cpu_flags().split() for name in _NAMES.get(flag, (_plain(flag),))}


def _plain(name: str) -> str:
    return re.sub(r"[._-]", "", name)
