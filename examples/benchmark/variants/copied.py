"""A bare copy of the cache folder, as a baked image or a shared disk gives it."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

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
                shutil.copytree(folder, stored.path("copy", name))

    @contextmanager
    def started(self, stored: Stored) -> Iterator[None]:
        """Copy back those that there were."""
        for kept in stored.path("copy").iterdir():
            shutil.copytree(kept, _folders()[kept.name])
        yield


def _folders() -> Mapping[str, Path]:
    return {"inductor": default_folder(Path(tempfile.gettempdir())), "triton": triton_folder()}
