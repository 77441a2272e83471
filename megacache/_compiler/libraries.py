"""Libraries that were restored: whether the system, and whoever asks for them, can load them."""

import _ctypes
import ctypes
import re
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

from megacache._compiler.door import door
from megacache.errors import CompilerError

_MODULE = re.compile(r"(?:.*/)?[A-Z2-7]{52}/(\w+)(?:\.[\w-]+)*\.so")
"""A module for Python that Triton has the C compiler make, in a folder of its own: `cuda_utils`, a launcher."""
# Of ELF: where the descriptions of segments begin, their size and number; of each, the kind, the offset and the length.
_HEADER, _SEGMENT = struct.Struct("<32xQ14xHH"), struct.Struct("<IxxxxQ16xQ")
_LOADED = 1
_MAGIC = b"\x7fELF"
_MAPS = Path("/proc/self/maps")
# What is not a file has the inode 0.
_MAPPED = re.compile(r"^\S+ \S+ \S+ \S+ [1-9]\d*\s+(/.*)$", re.MULTILINE)
# Linux adds it to the path of a mapped file that was removed.
_REMOVED = " (deleted)"
_LACKING = re.compile(r"^\s*(\S+) => not found$", re.MULTILINE)
_SECONDS = 10.0


def load_library(library: Path) -> ctypes.CDLL:
    """Load a library; raise `OSError` if that is not possible."""
    # The system ends a process that reads a part of a mapped file that is not there.
    _check_whole(library)
    return ctypes.CDLL(str(library))


def check_device_code(code: Path) -> None:
    """Raise `CompilerError` for what is no code for a GPU, or only a part of it: both cubin and hsaco are of ELF."""
    with door("reading the code of a kernel"):  # the driver would refuse it when the kernel is called
        with code.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                msg = "it is not of ELF"
                raise ImportError(msg)
        _check_whole(code)


def _check_whole(path: Path) -> None:
    """Raise `OSError` if a file in ELF's form is cut off."""
    with path.open("rb") as file:
        head = file.read(4_096)
    if max(_ends(head), default=0) > path.stat().st_size:
        msg = f"{path.name} is cut off"
        raise OSError(msg)


def _ends(head: bytes) -> Iterator[int]:
    """Tell where the segments end that are to be loaded, of a file in ELF's form for 64 bits, least byte first."""
    if head[:6] != _MAGIC + b"\2\1" or len(head) < _HEADER.size:
        return
    at, size, count = _HEADER.unpack_from(head)
    # A header that is damaged may say 0, which `range` does not take for a step.
    for place in range(at, at + size * count, size or 1):
        if place + _SEGMENT.size > len(head):
            return
        kind, offset, length = _SEGMENT.unpack_from(head, place)
        if kind == _LOADED:
            yield offset + length


def mapped_files() -> Iterator[Path]:
    """Give the files that are mapped into this process, its libraries among them; none where `/proc` is not.

    Those that were removed since are given as well.
    """
    try:
        maps = _MAPS.read_text(errors="surrogateescape")
    except OSError:
        return
    yield from dict.fromkeys(Path(name.removesuffix(_REMOVED)) for name in _MAPPED.findall(maps))


def check_needed(library: Path) -> None:
    """Raise `CompilerError` if a library needs others that are neither loaded nor found; nothing is run, or loaded.

    Nothing is known where the system has no `ldd`.
    """
    try:
        told = subprocess.run(
            ["ldd", library],  # noqa: S607 - wherever the system has it
            capture_output=True,
            text=True,
            errors="replace",
            timeout=_SECONDS,
            check=False,
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return
    # A library finds by its name what was loaded from anywhere, as those of PyTorch. A name without the last numbers of
    # the version is often that of a link.
    loaded = [f"{path.name}." for path in mapped_files()]
    if absent := {name for name in _LACKING.findall(told) if not any(one.startswith(f"{name}.") for one in loaded)}:
        msg = f"it needs {', '.join(sorted(absent))}, which is not here"
        raise CompilerError(msg, hint="install that, or load it before the warm start")


def module_name(path: str) -> str | None:
    """Give the name of the module that a compiled file is, by its path, or None if it is none."""
    match = _MODULE.fullmatch(path)
    return match[1] if match else None


def check_library(library: Path, module: str | None = None) -> None:
    """Load a library, and let it go again; raise `CompilerError` if that is not possible, or it is not that module."""
    # Triton makes a module anew that cannot be loaded, but fails with another library in its place. From a probe that
    # cannot be loaded PyTorch concludes that the processor lacks what the probe tries.
    with door("loading a compiled library"):
        held = load_library(library)
        try:
            if module is not None and not hasattr(held, f"PyInit_{module}"):
                msg = f"it is not a module {module}"
                raise ImportError(msg)
        finally:
            # `ctypes` itself never lets a library go.
            _ctypes.dlclose(held._handle)
