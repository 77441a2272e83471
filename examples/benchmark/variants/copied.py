"""A bare copy of the cache folder, as a baked image or a shared disk gives it, and the best PyTorch makes of it."""

import gc
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from examples.benchmark.variants.variant import Stored, Variant, default_folder, triton_folder


class Copied(Variant):
    """Copy torch's whole default folder, with C++ libraries and precompiled headers, and Triton's if there is one."""

    name = "copy"
    told = "a copy of the whole cache folder, precompiled headers included, and of Triton's own, from the same disk"

    @contextmanager
    def prepared(self, stored: Stored) -> Iterator[None]:
        """Copy the folders away."""
        yield
        for name, folder in _folders().items():
            if folder.is_dir():
                shutil.copytree(folder, stored.path(self.name, name))

    @contextmanager
    def started(self, stored: Stored) -> Iterator[None]:
        """Copy back those that there were."""
        for kept in stored.path(self.name).iterdir():
            shutil.copytree(kept, _folders()[kept.name])
        yield


class Floor(Copied):
    """Spare PyTorch, besides, whatever a warm start can: what remains are its imports, its tracing and its loading."""

    name = "floor"
    told = "PyTorch's own part: that copy, with Python's garbage collector off and each trial of the processor passed"

    @contextmanager
    def started(self, stored: Stored) -> Iterator[None]:
        """Take all trials for passed; their outcome is in no key."""
        gc.disable()
        with super().started(stored):
            import torch._inductor.cpu_vec_isa as trials  # after the copy, for it makes the folder

            tested: Any = trials.VecISA
            tested.check_build = lambda isa, code: True  # noqa: ARG005
            yield


def _folders() -> Mapping[str, Path]:
    return {"inductor": default_folder(Path(tempfile.gettempdir())), "triton": triton_folder()}
