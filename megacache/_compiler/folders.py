"""The caches of other compilers: folders with a name, each a root of its own.

What travels is what was written since this process has started, or lies beside a library that it has loaded. No tool
is asked: its locks, logs and temporary files are told by their names.
"""

import functools
import os
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from getpass import getuser
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from megacache._compiler import ninja
from megacache._compiler import roots as known_roots
from megacache._compiler.builds import find_build
from megacache._compiler.libraries import mapped_files
from megacache._settings import others_variable
from megacache.errors import SettingsError


@dataclass(frozen=True, slots=True, kw_only=True)
class Folder:
    """Where another compiler keeps what it has compiled, and on what that depends."""

    path: str | os.PathLike[str] | None = None
    """None for the folder that the tool itself would choose, if megacache knows the tool."""
    facts: Mapping[str, str] = field(default_factory=dict)
    """Words that must be the same where its files are used, such as the version of a program: by names of your own.

    The GPU or CPU, the versions of PyTorch, CUDA and Python, and the C++ compiler are compared in any case.
    """


Folders = Mapping[str, Folder | str | os.PathLike[str] | None]
"""Folders by name: a path stands for one without facts, and none for the one that its tool would choose."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Preset:
    """A tool whose folder is known."""

    variable: str
    """Names the folder, if it is set."""
    default: Callable[[], Path]
    """Names it otherwise."""
    below: str = ""
    """What the tool adds to either."""
    distribution: str = ""
    """The package that has the tool's version; PyTorch's own version is compared in any case."""


# From their sources: torch 2.8 to 2.15, flashinfer-python 0.7.2, tilelang 0.1.15, nvidia-cutlass-dsl 4.8.1, DeepGEMM of
# 2026. None of them makes code for one driver only.
_PRESETS: Mapping[str, _Preset] = {
    "cpp_extension": _Preset(variable="TORCH_EXTENSIONS_DIR", default=lambda: _user_cache() / "torch_extensions"),
    "cute_dsl": _Preset(
        variable="CUTE_DSL_CACHE_DIR",
        default=lambda: Path(tempfile.gettempdir(), others_variable("USER") or getuser(), "cutlass_python_cache"),
        distribution="nvidia-cutlass-dsl",
    ),
    "deep_gemm": _Preset(
        variable="DG_JIT_CACHE_DIR", default=lambda: Path.home() / ".deep_gemm", distribution="deep_gemm"
    ),
    "flashinfer": _Preset(
        variable="FLASHINFER_WORKSPACE_BASE",
        default=Path.home,
        below=".cache/flashinfer",
        distribution="flashinfer-python",
    ),
    "tilelang": _Preset(
        variable="TILELANG_CACHE_DIR", default=lambda: Path.home() / ".tilelang" / "cache", distribution="tilelang"
    ),
}
_CARRIED = frozenset({"inductor", "triton", "vllm"})
"""Names of the roots that travel in any case."""
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]{0,63}")
_LEFT_BEHIND = re.compile(r"\..*|tmp(\..*)?|__pycache__|lock|.*\.(lock|log|tmp|pid)")
"""Names of the files and folders that a tool needs only while it works."""
_STATUS, _START = Path("/proc/self/stat"), 19
"""Tells when the process has started, in ticks since the system has: in the field of that number after the name."""


def register_folders(folders: Folders) -> None:
    """Include the folders of other compilers in the warm starts and publications of this process.

    Raises `SettingsError` for one that cannot be named, or that no path is known of.
    """
    for name, given in folders.items():
        folder = given if isinstance(given, Folder) else Folder(path=given)
        if not _NAME.fullmatch(name) or name in _CARRIED:
            why = "it travels in any case" if name in _CARRIED else "a name consists of a-z, 0-9, '_', '.' and '-'"
            raise SettingsError(f"no folder can be named {name!r}: {why}", hint="choose another name")
        path = Path(folder.path).absolute() if folder.path else _usual(name)
        root = known_roots.Root(
            name=f"{known_roots.FOREIGN}{name}",
            folder=path,
            facts={f"{name}_{fact}": value for fact, value in {**_version(name), **folder.facts}.items()},
            foreign=True,
            used=functools.partial(_used, path),
        )
        known_roots.register(root)


def _usual(name: str) -> Path:
    preset = _PRESETS.get(name)
    if preset is None:
        raise SettingsError(f"the folder of {name!r} is not known", hint="give its path, as in NAME=PATH")
    try:
        return Path(others_variable(preset.variable) or preset.default(), preset.below).absolute()
    except (RuntimeError, KeyError, OSError) as error:  # by Python's version, for a user without a home or a name
        raise SettingsError(f"the folder of {name!r} cannot be told: {error}", hint="give its path") from error


def _user_cache() -> Path:
    # As PyTorch has it, which follows links.
    return Path(os.path.realpath(others_variable("XDG_CACHE_HOME") or Path.home() / ".cache"))


def _version(name: str) -> Mapping[str, str]:
    preset = _PRESETS.get(name)
    if preset is None or not preset.distribution:
        return {}
    try:
        return {"version": version(preset.distribution)}
    except PackageNotFoundError:
        return {"version": ""}


def _used(folder: Path) -> Iterator[Path]:
    since, loaded = _started(), _loaded(folder)
    for place, folders, names in os.walk(folder):
        here = Path(place)
        if ninja.LOG in names:
            folders.clear()
            if (_is_new(here / ninja.LOG, since) or here in loaded) and (build := find_build(here)):
                yield build
            continue
        folders[:] = [name for name in folders if not _LEFT_BEHIND.fullmatch(name)]
        beside = here in loaded and here != folder
        for name in sorted(names):
            path = here / name
            if not _LEFT_BEHIND.fullmatch(name) and (beside or path in loaded or _is_new(path, since)):
                yield path


def _loaded(folder: Path) -> set[Path]:
    """Give the libraries of a folder that are loaded, and the folders in which they lie."""
    real = folder.resolve()
    mapped = [folder / path.relative_to(real) for path in mapped_files() if path.is_relative_to(real)]
    return {*mapped, *(path.parent for path in mapped)}


def _is_new(path: Path, since: float) -> bool:
    try:
        return path.stat().st_mtime >= since
    except OSError:
        return False


def _started() -> float:
    """Tell when this process has started, in seconds since 1970; that is now where the system does not say."""
    now = time.time()
    try:
        # The name of the program, in brackets, may hold anything.
        ticks = int(_STATUS.read_text(errors="replace").rpartition(")")[2].split()[_START])
    except (OSError, ValueError, IndexError):
        return now
    return now - time.clock_gettime(time.CLOCK_BOOTTIME) + ticks / os.sysconf("SC_CLK_TCK")
