"""A bare copy of the cache folder, as a baked image or a shared disk gives it."""

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from examples.benchmark.variants.variant import Stored, Variant, default_folder


class Copied(Variant):
    """Copy torch's whole default folder: artifacts, C++ libraries and precompiled headers."""

    name = "copy"
    told = "a copy of the whole cache folder, precompiled headers included, from the same disk"

    @contextmanager
    def prepared(self, stored: Stored) -> Iterator[None]:
        """Copy the folder away."""
        yield
        shutil.copytree(default_folder(Path(tempfile.gettempdir())), stored.path("copy"))

    @contextmanager
    def started(self, stored: Stored) -> Iterator[None]:
        """Copy it back."""
        shutil.copytree(stored.path("copy"), default_folder(Path(tempfile.gettempdir())))
        yield
