"""Builds: folders in which ninja has built something travel as one file each, and ninja then finds nothing to do there.

Ninja builds again what its log does not name, what another command has built, and what is older than an input. Times
say nothing on another host: an input may be newer there and the same, or older and another one. So the contents of the
inputs are compared before a build is put in place, and its logs hold a time that no input has. What changes afterwards
is newer than the outputs, and ninja builds again.
"""

import errno
import functools
import os
import re
import shutil
import stat
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from megacache._bundle import Digest, Node, pack
from megacache._compiler import ninja
from megacache._compiler.libraries import check_needed
from megacache.errors import CompilerError, FormatError, UntrustedError

_BUILD = re.compile(r"(.+)\.[0-9a-f]{16}\.build")
_NAME = r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,254}"
_INNER = re.compile(rf"(?:{_NAME}/){{0,3}}{_NAME}")
_LOGS = frozenset({ninja.LOG, ninja.DEPS})
_LOCK = "lock"
"""A file that `torch.utils.cpp_extension` has in a folder as long as it builds there."""
_MOST_FILES, _MOST_INPUTS = 10_000, 60_000
_READABLE, _EXECUTABLE = 0o644, 0o755
_TAKEN = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})


@dataclass(frozen=True, slots=True, kw_only=True)
class _Build:
    """What a folder holds, with logs that tell no times."""

    files: Mapping[str, bytes]
    inputs: Mapping[str, str]
    """Digests of the inputs from elsewhere, by path."""
    made: frozenset[str]
    """Names of the files that differ each time."""

    @property
    def name(self) -> str:
        """Tells builds of other sources, commands or inputs apart: two that build the same name the same one."""
        own = [[name, data] for name, data in self.files.items() if name not in self.made]
        return Digest.of(pack([own, sorted(self.inputs.items())])).hex[:16]


def build_folder(path: str) -> str | None:
    """Give the folder that a compiled file holds as a whole, by its path; None if it is one as any other."""
    match = _BUILD.fullmatch(path)
    return match[1] if match else None


def find_build(folder: Path) -> Path | None:
    """Name the build in a folder, by a path beside it; None if it is not finished, or cannot travel."""
    try:
        return folder.with_name(f"{folder.name}.{_read(folder).name}.build")
    except (OSError, ValueError):
        return None


def pack_build(path: Path) -> bytes:
    """Write a build as one file; raise `OSError` if it is not there any more."""
    folder = Path(build_folder(str(path)) or path)
    try:
        build = _read(folder)
    except ValueError as error:
        raise FileNotFoundError(path) from error
    if f"{folder.name}.{build.name}.build" != path.name:
        raise FileNotFoundError(path)
    modes = {name: bool((folder / name).stat().st_mode & stat.S_IXUSR) for name in build.files}
    files = [[name, modes[name], data] for name, data in build.files.items()]
    return pack({"path": str(folder), "inputs": sorted(map(list, build.inputs.items())), "files": files})


def unpack_build(content: bytes, target: Path, folder: Path) -> bool:
    """Put a build in place, whole at once; return False if there is one already, of whatever content.

    `target` leads to `folder`, whatever becomes of the folders on the way. Raises `CompilerError` for a build that is
    of no use here, `UntrustedError` for what `pack_build` has not written, and `OSError`.
    """
    try:
        files = _checked(Node.unpack(content, "build"), folder)
    except FormatError as error:
        raise UntrustedError(f"build {folder.name!r} is not one: {error}", hint="find out who wrote it") from error
    temporary = target.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        # Ninja takes an output for old that was written before its source.
        now = time.time_ns()
        for name, (mode, data) in files.items():
            path = temporary / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
            path.chmod(mode)
            os.utime(path, ns=(now, now))
        # By a path that another process can follow.
        for library in sorted(folder.with_name(temporary.name).rglob("*.so")):
            check_needed(library)
        # It takes the place of an empty folder, and of nothing else.
        temporary.rename(target)
    except OSError as error:
        if error.errno in _TAKEN:
            return False
        raise
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return True


def _read(folder: Path) -> _Build:
    files = dict(_files(folder))
    if _LOCK in files or not {ninja.LOG, ninja.RULES} <= files.keys():
        raise FileNotFoundError(folder)
    log = ninja.timeless_log(files[ninja.LOG].decode())
    files[ninja.LOG] = log.encode()
    inputs = ninja.sources(files[ninja.RULES].decode())
    if ninja.DEPS in files:
        files[ninja.DEPS], headers = ninja.timeless_deps(files[ninja.DEPS])
        inputs |= headers
    elsewhere = sorted(path for path in _within(folder, inputs) if not Path(path).is_relative_to(folder))
    # Some tools write whole paths.
    made = {os.path.relpath(path, folder) for path in _within(folder, ninja.outputs(log))}
    return _Build(files=files, inputs={path: _digest(path) for path in elsewhere}, made=frozenset({*made, ninja.DEPS}))


def _within(folder: Path, paths: Iterable[str]) -> set[str]:
    return {os.path.normpath(folder / path) for path in paths}


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if (name in _LOGS or _INNER.fullmatch(name)) and stat.S_ISREG(path.lstat().st_mode):
            yield name, path.read_bytes()


def _digest(path: str) -> str:
    found = Path(path).stat()
    if not stat.S_ISREG(found.st_mode):  # a pipe would be waited for
        raise FileNotFoundError(path)
    return _digest_of(path, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=_MOST_INPUTS)
def _digest_of(path: str, size: int, changed: int) -> str:
    # The two last say whether the file is still the one that was read.
    del size, changed
    return Digest.of(Path(path).read_bytes()).hex


def _checked(build: Node, folder: Path) -> Mapping[str, tuple[int, bytes]]:
    """Give modes and contents; raise if ninja would build again, for the commands name the folder."""
    if (there := build.field("path").text()) != str(folder):
        raise CompilerError(f"ninja built it in {there}, and builds again in another folder", hint="use the same path")
    for path, digest in (item.leading(2) for item in build.field("inputs").items(most=_MOST_INPUTS)):
        if not _is(path.text(), digest.text()):
            raise CompilerError(f"{path.text()} is not the one that it was built from", hint="publish it again")
    files = dict[str, tuple[int, bytes]]()
    for name, executable, data in (item.leading(3) for item in build.field("files").items(most=_MOST_FILES)):
        if name.text() not in _LOGS and not _INNER.fullmatch(name.text()):
            raise FormatError(f"{name.text()[:80]!r} is no name in a build", path=name.path)
        files[name.text()] = (_EXECUTABLE if executable.value is True else _READABLE), data.data()
    return files


def _is(path: str, digest: str) -> bool:
    try:
        return _digest(path) == digest
    except OSError:
        return False
