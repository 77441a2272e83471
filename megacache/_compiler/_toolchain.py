"""What compiled files depend on beside the environment: processor, C++ compiler, C library, folders."""

import os
import platform
import re
import sysconfig
from collections.abc import Mapping
from pathlib import Path

from megacache._bundle import NO_COMPILER, Digest
from megacache._compiler._door import door

_CPUINFO = Path("/proc/cpuinfo")


def toolchain() -> Mapping[str, str]:
    """Collect the facts that guard compiled files; folders only as digests."""
    with door("describing its compiler"):
        import torch

        return {
            "compiler": compiler_version(),
            "compiler_name": _without_folders(compiler_name()),
            "cpu_flags": cpu_flags(),
            "libc": " ".join(platform.libc_ver()),
            "python_location": _digest(sysconfig.get_path("include"), str(sysconfig.get_config_var("LIBDIR"))),
            "torch_location": _digest(*torch.__path__),
        }


def compiler_version() -> str:
    """Tell name and version of the C++ compiler, such as `gcc version 14.2.0 (Debian 14.2.0-19)`."""
    from torch._inductor.cpp_builder import get_compiler_version_info, get_cpp_compiler

    try:
        text = get_compiler_version_info(get_cpp_compiler())
    except Exception:  # noqa: BLE001 - a host without a compiler is a fact, too
        text = ""
    if not text:
        return NO_COMPILER
    match = re.search(r"(?:gcc|clang) version [\w.]+(?: \([^()/]*\))?", text)
    return match[0] if match else f"unknown {_digest(text)}"


def compiler_name() -> str:
    """Tell what the compiler is called as; on a host without one, what it would be called as."""
    from torch._inductor import config
    from torch._inductor.cpp_builder import get_cpp_compiler

    try:
        return str(get_cpp_compiler())
    except Exception:  # noqa: BLE001 - as above
        names = config.cpp.cxx if isinstance(config.cpp.cxx, list | tuple) else [config.cpp.cxx]
        return str([name for name in names if name][-1])


def cpu_flags() -> str:
    """Give the processor's flags as the kernel tells them."""
    if not _CPUINFO.is_file():
        return ""
    match = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", _CPUINFO.read_text(), re.MULTILINE)
    return match[1] if match else ""


def _without_folders(name: str) -> str:
    return _digest(name) if os.sep in name else name


def _digest(*texts: str) -> str:
    return Digest.of("\0".join(texts).encode(errors="surrogateescape")).hex[:16]
