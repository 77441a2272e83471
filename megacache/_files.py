"""Compiled files on disk: which of them this process has loaded, and how another one gets them."""

import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from megacache import _roots
from megacache._bundle import CompiledFile, is_portable_file
from megacache._runtime import temporary_beside
from megacache.errors import UntrustedError

_MAPS = Path("/proc/self/maps")
_MAPPED = re.compile(r"^\S+ \S+ \S+ \S+ [1-9]\d*\s+(/.*)$", re.MULTILINE)
_GROUP = "__grp__"
_ROOT = b"[root]"
"""Stands for the folder of the root in the content of a file."""
_READABLE, _EXECUTABLE = 0o644, 0o755


@dataclass(frozen=True, slots=True, kw_only=True)
class Located:
    """Where a compiled file lies in this process."""

    root: str
    path: str
    folder: Path
    """The root's."""

    def read(self) -> CompiledFile | None:
        """Read the file; None if it is gone, is a link, or is none that a reader would accept."""
        if not is_portable_file(self.path, self.root):
            return None
        try:
            descriptor = os.open(self.folder / self.path, os.O_RDONLY | os.O_NOFOLLOW)
            with os.fdopen(descriptor, "rb") as file:
                mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
                content = _moved(self, file.read(), _bytes(self.folder), _ROOT)
                return CompiledFile(root=self.root, path=self.path, mode=_plain(mode), content=content)
        except OSError:
            return None


def mapped_files() -> Iterator[Path]:
    """Give the files that are mapped into this process, its libraries among them; none where `/proc` is not."""
    try:
        maps = _MAPS.read_text(errors="surrogateescape")
    except OSError:
        return
    yield from map(Path, dict.fromkeys(_MAPPED.findall(maps)))


def restore(file: CompiledFile, folder: Path) -> bool:
    """Put a file under its root, whole at once; return False if one of that name was there, which is kept.

    Raises `UntrustedError` for a path that leads elsewhere, through a symbolic link on this disk as well, and
    `OSError`.
    """
    target = _place(file.root, file.path, folder)
    if os.path.lexists(target):
        return False
    target.parent.mkdir(parents=True, exist_ok=True)
    with temporary_beside(target) as temporary:
        temporary.write_bytes(_moved(file, file.content, _ROOT, _bytes(folder)))
        temporary.chmod(_plain(file.mode))
        return _settle(temporary, target)


def remove(root: str, path: str, folder: Path) -> None:
    """Remove a file under its root; raise as `restore` does."""
    _place(root, path, folder).unlink()


_HINT = "find out who wrote it"


def _place(root: str, path: str, folder: Path) -> Path:
    """Say where a file belongs, once it is known that this is under its root; the root itself may be a link."""
    if not is_portable_file(path, root):
        raise UntrustedError(f"compiled file {path[:80]!r} is not one that a compiler writes", hint=_HINT)
    way = folder
    for name in path.split("/")[:-1]:
        way /= name
        if way.is_symlink():
            raise UntrustedError(f"the way to {path[:80]!r} goes through a symbolic link", hint=_HINT)
    return folder / path


def _settle(temporary: Path, target: Path) -> bool:
    try:
        os.link(temporary, target)
    except FileExistsError:
        return False
    except OSError:  # a mount without hard links
        temporary.replace(target)
    return True


def _moved(file: "CompiledFile | Located", content: bytes, before: bytes, after: bytes) -> bytes:
    """Change the folder in files that name it: Triton's list of the files of a kernel, and what a root tells of."""
    name, root = Path(file.path).name, _roots.find(file.root)
    tells = name.startswith(_GROUP) or (root is not None and name in root.telling)
    return content.replace(before, after) if tells else content


def _bytes(folder: Path) -> bytes:
    return json.dumps(str(folder)).strip('"').encode()


def _plain(mode: int) -> int:
    return _EXECUTABLE if mode & stat.S_IXUSR else _READABLE
