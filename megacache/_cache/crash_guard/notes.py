"""Notes: what this host has learned of a bundle, each an empty file with its name.

One says that what a bundle in quarantine had left in PyTorch's folders has been removed, another one that a program
could not use what a bundle holds. The latter stays as long as the folder does: what a bundle holds never changes.
"""

import os
import re
from contextlib import suppress
from pathlib import Path

from megacache._cache.crash_guard.locked_files import Folder

_FAILED = ".failed"
_FAILURE = re.compile(rf"[0-9a-f]{{32}}\{_FAILED}")


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

    def note_failure(self, bundle: str) -> None:
        """Note that a program could not use what a bundle holds."""
        with suppress(OSError), self._folder.inside(create=True) as folder:  # without it, the next start tries again
            (folder / f"{bundle}{_FAILED}").touch(exist_ok=False)

    def failed(self) -> frozenset[str]:
        """Give the ids of the bundles of which that was noted."""
        with self._folder.listed(_FAILURE) as found:
            return frozenset(path.name.removesuffix(_FAILED) for path in found)


def _name(bundle: str) -> str:
    return f"{bundle}.gone"
