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

from megacache._bundle import Artifact, CompiledFile, is_portable_file
from megacache._compiler import roots as known_roots
from megacache._compiler.adoption import check_kernel, is_kernel, unasked
from megacache._compiler.builds import build_folder, pack_build, unpack_build
from megacache._compiler.door import door
from megacache._compiler.kernels import kernel_files
from megacache._compiler.libraries import check_device_code, check_library, check_needed, mapped_files, module_name
from megacache._compiler.ninja import LOG
from megacache._compiler.probes import probe_libraries
from megacache._runtime import inner_folder, temporary_beside
from megacache._settings import triton_home
from megacache.errors import CompilerError, UntrustedError

# The beginning of the names of Triton's lists.
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
        """Read the file; None if it is gone, is a link, or is not one that a reader would accept."""
        if not is_portable_file(self.path, self.root):
            return None
        try:
            if build_of(self.root, self.path):
                content = pack_build(self.folder / self.path)
                return CompiledFile(root=self.root, path=self.path, mode=_READABLE, content=content)
            # `O_NONBLOCK`: a pipe of that name would block until somebody writes to it.
            descriptor = os.open(self.folder / self.path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
            with os.fdopen(descriptor, "rb") as file:
                mode = os.fstat(descriptor).st_mode
                if not stat.S_ISREG(mode):
                    return None
                content = _moved(self, file.read(), _bytes(self.folder), _ROOT)
                return CompiledFile(root=self.root, path=self.path, mode=_plain(mode), content=content)
        except OSError:
            return None


def restore(file: CompiledFile, folder: Path, *, anew: bool = False) -> bool:
    """Put a file under its root, whole at once; return False if it was there.

    Another file of its name is replaced, unless it may be one that a program has changed since; `anew` says that it
    cannot be, for this process has just written it.

    Raises `UntrustedError` for a path that leads elsewhere, through a symbolic link on this disk as well,
    `CompilerError` for a library that PyTorch could not use, and `OSError`.
    """
    with _place(file.root, file.path, folder, create=True) as target:
        if build := build_of(file.root, file.path):
            return unpack_build(file.content, target.with_name(Path(build).name), folder / build)
        content = _moved(file, file.content, _ROOT, _bytes(folder))
        # PyTorch names what it compiles after its source, and would fail with a file that is damaged.
        if _holds(target, content) or (os.path.lexists(target) and not anew and _is_the_programs(file)):
            _check_present(file, target)
            return False
        with temporary_beside(target) as temporary:
            temporary.write_bytes(content)
            temporary.chmod(_plain(file.mode))
            # Tried before it has its name: no process ever finds a library there that it cannot load.
            _check(file, temporary)
            if _is_foreign(file.root) and target.suffix == ".so":
                check_needed((folder / file.path).with_name(temporary.name))
            temporary.replace(target)
            return True


def build_of(root: str, path: str) -> str | None:
    """Give the folder that a file of another compiler's cache holds as a whole; None for any other file."""
    return build_folder(path) if _is_foreign(root) else None


def lists_others(path: str) -> bool:
    """Tell whether a compiled file names others, which Triton then expects to be there."""
    return Path(path).name.startswith(_GROUP)


def remove(root: str, path: str, folder: Path) -> None:
    """Remove a file under its root; raise as `restore` does. Of a build only the log goes: ninja then builds again."""
    with _place(root, path, folder) as target:
        if build := build_of(root, path):
            with inner_folder(target.parent, Path(build).name) as inner:
                (inner / LOG).unlink()
        else:
            target.unlink()


_HINT = "find out who wrote it"
_ELSEWHERE = frozenset({errno.ELOOP, errno.ENOTDIR, errno.EPERM})
"""What the system answers for a link, for a file in the place of a folder, and for another user's folder."""


@contextmanager
def _place(root: str, path: str, folder: Path, *, create: bool = False) -> Iterator[Path]:
    """Say where a file belongs, by a path that stays under its root even if a folder on the way is replaced."""
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


def _holds(target: Path, content: bytes) -> bool:
    """Tell whether there is a file with some content, which no link leads to."""
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        with os.fdopen(descriptor, "rb") as file:
            return os.fstat(descriptor).st_size == len(content) and file.read() == content
    except OSError:
        return False


_PROBE = re.compile(r"[a-z2-7]{2}/c[a-z2-7]{51}\.so")
"""A library, named after its code, by which PyTorch's ISA picker tries what the processor can do."""


def _is_the_programs(file: CompiledFile) -> bool:
    """Tell whether a program may change a file as it goes on."""
    return known_roots.find(file.root) is not None and (_is_foreign(file.root) or not is_kernel(file.path))


def _is_foreign(root: str) -> bool:
    found = known_roots.find(root)
    return found is not None and found.foreign


def _check(file: CompiledFile, library: Path) -> None:
    """Raise `CompilerError` for what could not be used: the library of a kernel, a probe, or what is of Triton's."""
    path = file.path
    if _is_foreign(file.root):  # what its names mean, only its compiler knows
        return
    if is_kernel(path):
        check_kernel(library)
    elif name := module_name(path):
        check_library(library, name)
    elif _PROBE.fullmatch(path):
        check_library(library)
    elif path.endswith((".cubin", ".hsaco")):
        check_device_code(library)
    elif path.endswith(".json") and known_roots.find(file.root) is None:
        with door("reading what is said of a kernel"):  # Triton would fail with it
            json.loads(library.read_bytes())


def _check_present(file: CompiledFile, target: Path) -> None:
    """Check a file that is there, and remove it if it could not be used."""
    try:
        _check(file, target)
    except CompilerError:
        target.unlink(missing_ok=True)
        raise


def _moved(file: "CompiledFile | Located", content: bytes, before: bytes, after: bytes) -> bytes:
    """Change the folder in files that name it: Triton's list of the files of a kernel, and what a root tells of."""
    root = known_roots.find(file.root)
    tells = lists_others(file.path) or (root is not None and Path(file.path).name in root.telling)
    return content.replace(before, after) if tells else content


def _bytes(folder: Path) -> bytes:
    # As it stands in Triton's lists, which are JSON.
    return json.dumps(str(folder)).strip('"').encode()


def _plain(mode: int) -> int:
    return _EXECUTABLE if mode & stat.S_IXUSR else _READABLE


def file_roots(device: int | None) -> Mapping[str, tuple[Path, ...]]:
    """Name the folders that compiled files lie under: PyTorch's own, of Triton maybe two, and those registered.

    `device` is the GPU of the thread that compiles, as `current_device` tells it.
    """
    with door("finding its cache folders"):
        from torch._inductor.runtime.cache_dir_utils import cache_dir, triton_cache_dir

        inductor, triton = Path(cache_dir()), Path(triton_cache_dir(device or 0))
        led = triton.is_relative_to(inductor)
        # Inductor leads Triton to a folder below its own, but not before it makes its first kernel: what Triton needs
        # until then, such as its `cuda_utils`, lies in Triton's own.
        own = {"inductor": (inductor,), "triton": (triton, triton_home()) if led else (triton,)}
        return own | {root.name: (root.folder,) for root in known_roots.registered()}


def used_files(recorded: Iterable[Artifact], roots: Mapping[str, tuple[Path, ...]]) -> tuple[Located, ...]:
    """Find the compiled files that this process uses, of all that lie in the folders of its roots.

    A library counts once it is mapped; if a warm start has mapped it, once a graph has asked for it. The trials of the
    ISA picker, which ran in other processes, count once it has picked. A Triton kernel counts unless a recorded
    artifact holds it. A registered root names its own files, and if it is foreign, all of them. Some files may be gone:
    their content cannot be read.
    """
    with door("looking for compiled files"):
        mapped = set(mapped_files()) - unasked()
        paths = [*mapped, *probe_libraries(), *kernel_files(recorded, roots["triton"])]
        own = {root: places for root, places in roots.items() if not _is_foreign(root)}
        located = [_locate(path, own) for path in paths]
        located += [_locate(path, roots) for root in known_roots.registered() for path in root.used()]
        found = {(one.root, one.path): one for one in filter(None, located) if is_portable_file(one.path, one.root)}
        return tuple(found[name] for name in sorted(found))


def _locate(path: Path, roots: Mapping[str, tuple[Path, ...]]) -> Located | None:
    # Triton's folder usually lies within Inductor's: the deepest root is the one that counts. A program that keeps a
    # folder of its own may put both into it, at a place that the next process learns only when it compiles.
    folders = [(root, folder) for root, places in roots.items() for folder in places]
    for root, folder in sorted(folders, key=lambda item: (known_roots.find(item[0]) is None, -len(item[1].parts))):
        # A library is mapped under its real path, whatever links led to it.
        for form in {folder, folder.resolve()}:
            if path.is_relative_to(form):
                return Located(root=root, path=path.relative_to(form).as_posix(), folder=folder)
    return None
