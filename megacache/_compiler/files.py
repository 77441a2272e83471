"""Compiled files on disk: where they lie, which of them this process uses, and how another one gets them."""

import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megacache._bundle import Artifact, CompiledFile, is_portable_file
from megacache._compiler import roots as known_roots
from megacache._compiler.adoption import probe_libraries
from megacache._compiler.door import door
from megacache._compiler.kernels import kernel_files
from megacache._runtime import inner_folder, temporary_beside
from megacache._settings import triton_home
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
            # Nobody waits for a pipe.
            descriptor = os.open(self.folder / self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                mode = os.fstat(descriptor).st_mode
                if not stat.S_ISREG(mode):
                    return None
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
    with _place(file.root, file.path, folder, create=True) as target:
        if os.path.lexists(target):
            return False
        with temporary_beside(target) as temporary:
            temporary.write_bytes(_moved(file, file.content, _ROOT, _bytes(folder)))
            temporary.chmod(_plain(file.mode))
            return _settle(temporary, target)


def remove(root: str, path: str, folder: Path) -> None:
    """Remove a file under its root; raise as `restore` does."""
    with _place(root, path, folder) as target:
        target.unlink()


_HINT = "find out who wrote it"
_ELSEWHERE = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EPERM})
"""What opening a folder says of one that is none, or is not to be entered."""


@contextmanager
def _place(root: str, path: str, folder: Path, *, create: bool = False) -> Iterator[Path]:
    """Say where a file belongs, by a path that stays under its root whatever becomes of the folders on the way."""
    if not is_portable_file(path, root):
        raise UntrustedError(f"compiled file {path[:80]!r} is not one that a compiler writes", hint=_HINT)
    *way, name = path.split("/")
    with ExitStack() as stack:
        try:
            inner = stack.enter_context(inner_folder(folder, *way, create=create))
        except OSError as error:
            if error.errno not in _ELSEWHERE:
                raise
            msg = f"the way to {path[:80]!r} goes through a symbolic link, or another user's folder"
            raise UntrustedError(msg, hint=_HINT) from error
        yield inner / name


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
    name, root = Path(file.path).name, known_roots.find(file.root)
    tells = name.startswith(_GROUP) or (root is not None and name in root.telling)
    return content.replace(before, after) if tells else content


def _bytes(folder: Path) -> bytes:
    return json.dumps(str(folder)).strip('"').encode()


def _plain(mode: int) -> int:
    return _EXECUTABLE if mode & stat.S_IXUSR else _READABLE


def file_roots() -> Mapping[str, tuple[Path, ...]]:
    """Name the folders that compiled files lie under: PyTorch's own and those that are registered.

    Triton's files may be looked for in two: Inductor leads Triton to a folder below its own, but not before it makes
    its first kernel, and what Triton needs until then, such as its `cuda_utils`, lies in Triton's own.
    """
    with door("finding its cache folders"):
        import torch
        from torch._inductor.runtime.cache_dir_utils import cache_dir, triton_cache_dir

        cuda: Any = torch.cuda
        device = cuda.current_device() if cuda.is_initialized() else 0
        inductor, triton = Path(cache_dir()), Path(triton_cache_dir(device))
        led = triton.is_relative_to(inductor)
        own = {"inductor": (inductor,), "triton": (triton, triton_home()) if led else (triton,)}
        return own | {root.name: (root.folder,) for root in known_roots.registered()}


def used_files(recorded: Iterable[Artifact]) -> tuple[Located, ...]:
    """Find the compiled files that this process uses, of all that lie in folders it may share with others.

    A library counts once it is mapped, which only a graph of this process can have caused; the trials of the ISA
    picker, which ran in processes of their own, once it has picked; a Triton kernel, unless it is in an artifact that
    was recorded. A registered root tells by itself what is used.
    """
    roots = file_roots()
    with door("looking for compiled files"):
        paths = [*mapped_files(), *probe_libraries(), *kernel_files(recorded, roots["triton"])]
        paths += [path for root in known_roots.registered() for path in root.used()]
        found = {(one.root, one.path): one for path in paths if (one := _locate(path, roots))}
        return tuple(found[name] for name in sorted(found))


def _locate(path: Path, roots: Mapping[str, tuple[Path, ...]]) -> Located | None:
    # Triton's folder usually lies within Inductor's: the deepest root is the one that counts. A program that keeps a
    # folder of its own may put both into it, at a place that the next process learns only when it compiles.
    folders = [(root, folder) for root, places in roots.items() for folder in places]
    for root, folder in sorted(folders, key=lambda item: (known_roots.find(item[0]) is None, -len(item[1].parts))):
        for form in {folder, folder.resolve()}:
            if path.is_relative_to(form):
                return Located(root=root, path=path.relative_to(form).as_posix(), folder=folder)
    return None
