"""Which compiled files this process uses, and where such files lie."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from megacache import _roots
from megacache._bundle import Artifact
from megacache._compiler._door import door
from megacache._compiler._probes import probe_libraries
from megacache._compiler._triton import kernel_files
from megacache._files import Located, mapped_files
from megacache._settings import triton_home


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
        return own | {root.name: (root.folder,) for root in _roots.registered()}


def used_files(recorded: Iterable[Artifact]) -> tuple[Located, ...]:
    """Find the compiled files that this process uses, of all that lie in folders it may share with others.

    A library counts once it is mapped, which only a graph of this process can have caused; the trials of the ISA
    picker, which ran in processes of their own, once it has picked; a Triton kernel, unless it is in an artifact that
    was recorded. A registered root tells by itself what is used.
    """
    roots = file_roots()
    with door("looking for compiled files"):
        paths = [*mapped_files(), *probe_libraries(), *kernel_files(recorded, roots["triton"])]
        paths += [path for root in _roots.registered() for path in root.used()]
        found = {(one.root, one.path): one for path in paths if (one := _locate(path, roots))}
        return tuple(found[name] for name in sorted(found))


def _locate(path: Path, roots: Mapping[str, tuple[Path, ...]]) -> Located | None:
    # Triton's folder usually lies within Inductor's: the deepest root is the one that counts. A program that keeps a
    # folder of its own may put both into it, at a place that the next process learns only when it compiles.
    folders = [(root, folder) for root, places in roots.items() for folder in places]
    for root, folder in sorted(folders, key=lambda item: (_roots.find(item[0]) is None, -len(item[1].parts))):
        for form in {folder, folder.resolve()}:
            if path.is_relative_to(form):
                return Located(root=root, path=path.relative_to(form).as_posix(), folder=folder)
    return None
