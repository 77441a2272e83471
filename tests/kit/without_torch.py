"""Warm starts in this process that bring nothing to PyTorch, and see what they would have brought."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from megacache import _compiler
from megacache._cache import WarmResult
from megacache._catalog import WARM_MAX_BYTES
from megacache._runtime import Deadline
from megacache._store import Store
from megacache._trust import TrustPolicy
from tests.corpus.stores import HERE
from tests.kit.builders import warm_up


@dataclass(frozen=True, slots=True, kw_only=True)
class WatchedFolder:
    """Where warm starts would bring something, and what they have brought."""

    folder: Path
    loaded: list[bytes] = field(default_factory=list)

    @property
    def root(self) -> Path:
        """The root of compiled files; it has a link that leads out of it."""
        return self.folder / "root"

    @property
    def written(self) -> list[Path]:
        """Give what is there and was not there before."""
        planted = {self.root, self.root / "linked", self.folder / "outside"}
        own = self.folder / "starts"
        return [path for path in self.folder.rglob("*") if path not in planted and not path.is_relative_to(own)]


@contextmanager
def watched(folder: Path) -> Iterator[WatchedFolder]:
    """Let compiled files go below a folder, and artifacts into a list."""
    place = WatchedFolder(folder=folder)
    place.root.mkdir(parents=True)
    (folder / "outside").mkdir()
    (place.root / "linked").symlink_to(folder / "outside")

    def load(raw: bytes, _: object, deadline: Deadline) -> tuple[_compiler.Loaded, dict[Any, Any]]:
        deadline.check("loading")
        place.loaded.append(raw)
        return _compiler.Loaded(), {}

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_compiler, "load_if_met", load)
        patch.setattr(_compiler, "current_device", lambda: None)
        patch.setattr(_compiler, "toolchain", lambda *_: {})
        patch.setattr(_compiler, "file_roots", lambda _: {"inductor": (place.root,)})
        patch.setattr(_compiler, "adopt", lambda *_: None)
        yield place


def warm(
    store: Store, place: WatchedFolder, *, policy: TrustPolicy | None = None, max_bytes: int = WARM_MAX_BYTES
) -> WarmResult:
    """Make a warm start for the environment of the corpus."""
    return warm_up(store, HERE, place.folder / "starts", policy=policy, max_bytes=max_bytes)
