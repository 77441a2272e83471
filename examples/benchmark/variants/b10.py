"""Baseten's cache, a compressed tar of Inductor's folder on a shared volume, set up as its documentation says.

https://pypi.org/project/b10-transfer
"""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from examples.benchmark.variants.variant import Stored, Variant, default_folder

_ENOUGH_MB = "256"


class B10(Variant):
    """Load before compiling and save after the first call, as its quick start does.

    Its default for TORCHINDUCTOR_CACHE_DIR, /tmp/torchinductor_<user>, is torch's own default folder, so that it
    carries the precompiled C++ headers, too; it gets the same folder here.
    """

    name = "b10"
    told = "`b10_transfer.load_compile_cache`: a compressed tar of the whole cache folder on a shared volume"
    packages = ("b10_transfer",)
    programs = ("tar",)

    def variables(self, stored: Stored, tmp: Path) -> Mapping[str, str]:
        """Say where its folders are, and that a disk without 100 GB to spare will do."""
        return {
            "BASETEN_FS_ENABLED": "1",
            "TORCHINDUCTOR_CACHE_DIR": str(default_folder(tmp)),
            "B10FS_CACHE_DIR": str(stored.path("b10")),
            "LOCAL_WORK_DIR": str(tmp),
            "MAX_CONCURRENT_SAVES": "1",
            "MIN_LOCAL_SPACE_MB": _ENOUGH_MB,
            "MIN_B10FS_SPACE_MB": _ENOUGH_MB,
        }

    def import_package(self) -> None:
        """Import it, and let its folders lie elsewhere than below /cache and /app, which would take a root to make.

        Only the test of the folders' names is replaced, which takes microseconds; all else is its own work.
        """
        from b10_transfer import archive, config

        for module in (archive, config):
            module.validate_path_security = _resolved

    @contextmanager
    def prepared(self, stored: Stored) -> Iterator[None]:
        """Pack the folder at the end."""
        import b10_transfer

        stored.path("b10").mkdir()
        yield
        _expect(b10_transfer.save_compile_cache())

    @contextmanager
    def started(self, stored: Stored) -> Iterator[None]:
        """Unpack it."""
        import b10_transfer

        del stored
        _expect(b10_transfer.load_compile_cache())
        yield


def _expect(status: object) -> None:
    from b10_transfer import OperationStatus

    if status is not OperationStatus.SUCCESS:
        raise RuntimeError(f"b10-transfer says {status}")


def _resolved(path: str, *_others: object) -> str:
    """Resolve a path as the function does that this one stands for."""
    return str(Path(path).resolve())
