"""A folder full of traps for who restores files."""

import atexit
import os
import shutil
import stat
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from megacache._bundle import CompiledFile
from megacache._compiler import restore
from megacache.errors import CompilerError, UntrustedError


class Traps:
    """A root into which files are restored, with links, pipes and files where folders should be, and its neighbours."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="megacache-traps-"))
        atexit.register(shutil.rmtree, self.folder, ignore_errors=True)
        self.root, self.outside = self.folder / "root", self.folder / "outside"
        (self.root / "kept").mkdir(parents=True)
        self.outside.mkdir()
        (self.root / "linked").symlink_to(self.outside)
        (self.root / "loop").symlink_to("loop")
        (self.root / "file").write_bytes(b"file")
        os.mkfifo(self.root / "pipe")
        self.planted = self._seen()
        self._plant()

    def _plant(self) -> None:
        """Put back what a compiled file may replace: another one of its name, and a link to what is not there."""
        (self.root / "kept" / "x.so").write_bytes(b"kept")
        (self.root / "dangling.so").unlink(missing_ok=True)
        (self.root / "dangling.so").symlink_to(self.outside / "new.so")

    def restore(self, file: CompiledFile) -> None:
        """Restore a file as a warm start does, which goes on with the next if this one is refused."""
        with suppress(OSError, UntrustedError, CompilerError):
            if restore(file, self.root):
                found = (self.root / file.path).lstat()
                assert stat.S_ISREG(found.st_mode)
                assert stat.S_IMODE(found.st_mode) in {0o644, 0o755}
                assert found.st_size == len(file.content) or "__grp__" in file.path

    def __enter__(self) -> None:
        """Begin."""

    def __exit__(self, *_: object) -> None:
        """See that nothing was written elsewhere and nothing that was there has changed; clear away what is new."""
        assert list(self.outside.iterdir()) == []
        assert sorted(path.name for path in self.folder.iterdir() if path.name != "starts") == ["outside", "root"]
        seen = self._seen()
        assert seen.items() >= self.planted.items()
        for name in {path.partition("/")[0] for path in seen.keys() - self.planted.keys()}:
            self._clear(name)
        self._plant()

    def _clear(self, name: str) -> None:
        if name == "kept":
            for path in (self.root / "kept").iterdir():
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        elif (self.root / name).is_dir():
            shutil.rmtree(self.root / name)
        else:
            (self.root / name).unlink()

    def _seen(self) -> Mapping[str, tuple[int, int]]:
        """Give all that is in the root, with its mode and place on disk."""
        paths = [Path(top) / name for top, folders, files in os.walk(self.root) for name in (*folders, *files)]
        return {str(path.relative_to(self.root)): (path.lstat().st_mode, path.lstat().st_ino) for path in paths}
