"""fal's cache, a zip of Inductor's folder on a shared disk, set up as its documentation says.

https://docs.fal.ai/serverless/optimizations/optimize-startup-with-compiled-caches
"""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType

from examples.benchmark.variants.variant import Stored, Variant

_KEY = "benchmark/v1"


class Fal(Variant):
    """Use its context manager around the compilation and the first call.

    It sets TORCHINDUCTOR_CACHE_DIR to a folder of its own, packs that folder, and nothing else: the precompiled C++
    headers, which torch always keeps in its default folder, do not travel. So it compiles in a process of its own.
    """

    name = "fal"
    told = "`fal.toolkit.synchronized_inductor_cache`: a zip of its Inductor folder on a shared disk"
    preparation = "fal"
    packages = ("fal",)

    def import_package(self) -> None:
        """Import it as its documentation does."""
        import fal.toolkit  # noqa: F401

    @contextmanager
    def prepared(self, stored: Stored) -> Iterator[None]:
        """Find nothing, and pack the folder at the end."""
        with _placed(stored).synchronized_inductor_cache(_KEY):
            yield

    @contextmanager
    def started(self, stored: Stored) -> Iterator[None]:
        """Unpack it. What it does at the end, comparing file names, comes after the first output."""
        module = _placed(stored)
        with module.synchronized_inductor_cache(_KEY):
            # It prints and goes on cold if it finds nothing.
            if not module.LOCAL_INDUCTOR_CACHE_DIR.exists():
                raise RuntimeError("fal has unpacked nothing")
            yield


def _placed(stored: Stored) -> ModuleType:
    """Move its folders, which are constants below /tmp and /data, to where this process may write."""
    import tempfile

    from fal.toolkit import compilation

    module: ModuleType = compilation
    shared = stored.path("fal")
    folders = {
        "LOCAL_INDUCTOR_CACHE_DIR": Path(tempfile.gettempdir(), "inductor-cache"),
        "GLOBAL_INDUCTOR_CACHES_DIR": shared / "inductor-caches",
        "PERSISTENT_TMP_DIR": shared / "tmp",
    }
    for name, folder in folders.items():
        if not isinstance(getattr(module, name), Path):
            raise TypeError(f"fal.toolkit.compilation.{name} is no longer a folder: pin fal as noxfile.py does")
        setattr(module, name, folder)
    return module
