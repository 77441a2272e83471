"""What a warm start does in PyTorch's cache folder.

The disk may hang, and what is loaded may let this process die: each step is within the deadline, and marked.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from megacache import _compiler
from megacache._bundle import ArtifactRef, CompiledFile, FileRef, Manifest
from megacache._cache.call import Call
from megacache._cache.compiled_files import Restoration, clear_quarantined, clear_suspects, find_quarantined
from megacache._cache.crash_guard import CrashGuard
from megacache._catalog import Catalog, Listing
from megacache._runtime import Deadline, call
from megacache.errors import DeadlineError, UnavailableError

Value = TypeVar("Value")


class CacheFolder:
    """The cache folder of PyTorch for the length of one warm start.

    All methods raise `DeadlineError` where the disk does not answer; only what torch writes in `load` is waited for.
    """

    def __init__(self, verb: Call, guard: CrashGuard) -> None:
        self._verb = verb
        self._guard = guard
        self._written: dict[str, set[Path]] = {}
        self.restoration = Restoration()
        self.suspects: Collection[str] = ()
        """Ids of the bundles that are suspected of having ended processes."""
        self.failed: Collection[str] = ()
        """Ids of the bundles that a program could not use on this host."""

    def begin(self, *, files: bool) -> None:
        """Find out what compiled files need here, and clear what processes had loaded when they died."""
        # In this thread: another one would have another current device.
        device = _compiler.current_device()
        self.suspects = self._on_disk(lambda: self._look_back(device, files=files))

    def places(self) -> object:
        """Collect where compiled files belong, and which facts decide on those of other compilers."""
        device, facts = _compiler.current_device(), {root.name: root.facts for root in _compiler.roots.registered()}
        return self._on_disk(lambda: _compiler.file_roots(device)), facts

    def finish(self) -> None:
        """Put builds in place, and say what is missing."""
        with suppress(DeadlineError):  # nothing more is said once the time is over
            self._on_disk(self.restoration.finish)

    def _look_back(self, device: int | None, *, files: bool) -> Collection[str]:
        self.restoration.begin(device, self._verb.deadline, wanted=files)
        suspects = self._guard.look_back().suspects
        self.failed = self._guard.notes.failed()
        clear_suspects(self._guard, self.restoration)
        return suspects

    def find_quarantined(self, listing: Listing, catalog: Catalog) -> Sequence[Manifest]:
        """Read the manifests of withdrawn bundles that an earlier start may have loaded here."""
        return self._on_disk(lambda: find_quarantined(listing, catalog, self._guard))

    def clear_quarantined(self, manifests: Sequence[Manifest]) -> None:
        """Clear what came from them."""
        if manifests:
            self._on_disk(lambda: clear_quarantined(manifests, self._guard, self.restoration))

    def expect(self, manifests: Collection[Manifest]) -> None:
        """Let the marker of this process name what is about to be loaded."""
        self._on_disk(lambda: self._guard.add(manifests))

    def sign_in(self, bundle: str) -> None:
        """Let no other start remove the files of a bundle."""
        self._on_disk(lambda: self._guard.sign_in(bundle))

    def load(
        self, manifest: Manifest, blob: bytes, deadline: Deadline
    ) -> tuple[_compiler.Loaded, Mapping[ArtifactRef, frozenset[str]]]:
        """Hand artifacts of a bundle to torch, as `_compiler.load_if_met` does."""
        self._on_disk(self._guard.arm)
        try:
            loaded, unmet = _compiler.load_if_met(blob, manifest.operators, deadline)
        finally:
            with suppress(UnavailableError):
                call(self._guard.disarm_unless_compiling, deadline=self._soon(), doing=_compiler.FOLDER)
        self._written.setdefault(manifest.bundle, set()).update(loaded.written)
        return loaded, unmet

    def accept(self, bundle: str, files: Iterable[CompiledFile]) -> None:
        """Put some compiled files of a bundle in place."""
        self._armed(lambda: self.restoration.accept(bundle, files))

    def settle(self, manifest: Manifest) -> Sequence[FileRef]:
        """Let torch find the compiled files of a bundle that has come whole; give those that are useful here."""
        return self._armed(lambda: self.restoration.settle(manifest))

    def take_back(self, bundle: str) -> None:
        """Leave nothing of a bundle, even if the time is over; a disk that hangs is not waited for."""
        written = self._written.pop(bundle, ())

        def remove() -> None:
            _compiler.take_back(written)
            self.restoration.abandon(bundle)

        with suppress(UnavailableError):
            call(remove, deadline=self._soon(), doing=_compiler.FOLDER)

    def until(self, deadline: Deadline) -> None:
        """Let what comes now be done by another deadline."""
        self._verb = self._verb.until(deadline)

    def _soon(self) -> Deadline:
        return Deadline.after(_compiler.UNDO_SECONDS)

    def _on_disk(self, step: Callable[[], Value]) -> Value:
        return self._verb.on_disk(step)

    def _armed(self, step: Callable[[], Value]) -> Value:
        def armed() -> Value:
            with self._guard.armed():
                return step()

        return self._on_disk(armed)
