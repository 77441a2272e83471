"""Notes: each says that what a bundle in quarantine had left in PyTorch's folders has been removed."""

import os
from contextlib import suppress
from pathlib import Path

from megacache._cache.crash_guard.locked_files import Folder


class Notes:
    """The notes in one folder; they are about the cache folder of PyTorch that it lies in."""

    def __init__(self, folder: Path) -> None:
        self._folder = Folder(folder)

    def is_cleared(self, bundle: str) -> bool:
        """Tell whether a bundle was noted as cleared since it was last loaded."""
        with suppress(OSError), self._folder.inside() as folder:
            return os.path.lexists(folder / _name(bundle))
        return False

    def note(self, bundle: str) -> None:
        """Note that nothing of a bundle is left."""
        with suppress(OSError), self._folder.inside(create=True) as folder:  # without it, the next start looks again
            (folder / _name(bundle)).touch(exist_ok=False)

    def forget(self, bundle: str) -> None:
        """Remove the note: the bundle is loaded again."""
        with suppress(OSError), self._folder.inside() as folder:
            (folder / _name(bundle)).unlink()


def _name(bundle: str) -> str:
    return f"{bundle}.gone"
