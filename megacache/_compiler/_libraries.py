"""Which compiled files this process uses, and where such files lie."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from megacache import _roots
from megacache._compiler._door import door
from megacache._compiler._probes import probe_libraries
from megacache._compiler._triton import kernel_files
from megacache._files import Located, mapped_files


def file_roots() -> Mapping[str, Path]:
    """Name the folders that compiled files lie under: PyTorch's own and those that are registered."""
    with door("finding its cache folders"):
        import torch
        from torch._inductor.runtime.cache_dir_utils import cache_dir, triton_cache_dir

        cuda: Any = torch.cuda
        device = cuda.current_device() if cuda.is_initialized() else 0
        own = {"inductor": Path(cache_dir()), "triton": Path(triton_cache_dir(device))}
        return own | {root.name: root.folder for root in _roots.registered()}


def used_files() -> tuple[Located, ...]:
    """Find the compiled files that this process uses, of all that lie in folders it may share with others.

    A library counts once it is mapped, which only a graph of this process can have caused; the trials of the ISA
    picker, which ran in processes of their own, once it has picked. A registered root tells by itself what is used.
    """
    roots = file_roots()
    with door("looking for compiled files"):
        paths = [*mapped_files(), *probe_libraries(), *kernel_files(roots["triton"], roots["inductor"])]
        paths += [path for root in _roots.registered() for path in root.used()]
        found = {located for path in paths if (located := _locate(path, roots))}
        return tuple(sorted(found, key=lambda one: (one.root, one.path)))


def _locate(path: Path, roots: Mapping[str, Path]) -> Located | None:
    # Triton's folder usually lies within Inductor's: the deepest root is the one that counts. A program that keeps a
    # folder of its own may put both into it, at a place that the next process learns only when it compiles.
    for root, folder in sorted(roots.items(), key=lambda item: (_roots.find(item[0]) is None, -len(item[1].parts))):
        for form in {folder, folder.resolve()}:
            if path.is_relative_to(form):
                return Located(root=root, path=path.relative_to(form).as_posix(), folder=folder)
    return None
