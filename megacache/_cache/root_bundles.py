"""The bundles with files of one registered root, such as vLLM's folder: which of them fit this process."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from megacache._bundle import Manifest, Mismatch, differences
from megacache._compiler import roots as known_roots
from megacache._runtime import counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """Bundles with files of one root, of which none fits here."""

    root: str
    differing: Mapping[str, Sequence[Mismatch]]
    """The facts that differ, by the id of the bundle, the newest last."""

    @property
    def nearest(self) -> str:
        """Give the id of the bundle with the fewest facts that differ; of several, the newest."""
        return min(reversed(tuple(self.differing)), key=lambda bundle: len(self.differing[bundle]))

    @property
    def mismatches(self) -> Sequence[Mismatch]:
        """Give the facts in which that one differs."""
        return self.differing[self.nearest]

    def __str__(self) -> str:
        held = f"{counted(len(self.differing), 'bundle')} with files of {self.root}"
        return f"none of {held} fits here; the nearest, {self.nearest}, differs"


class RootBundles:
    """The bundles with files of one root that a warm start has found."""

    def __init__(self, root: known_roots.Root) -> None:
        self._root = root
        self._fitting: set[str] = set()
        self._unfit: dict[str, Sequence[Mismatch]] = {}
        self._of_other_ranks: set[str] = set()

    def add(self, manifest: Manifest, differing: Sequence[Mismatch]) -> None:
        """Sort a bundle in, given the facts that differ here."""
        if not self._root.concerns([file.path for file in manifest.files.index]):
            self._of_other_ranks.update([manifest.bundle] if differing else [])
        elif differing:
            self._unfit[manifest.bundle] = differing
        else:
            self._fitting.add(manifest.bundle)

    def not_needed(self, whole: Collection[str]) -> Collection[str]:
        """Give the ids of the bundles that only other ranks of the program need.

        None if this process has none of its own, or if one of these is not among those that have come `whole`: then it
        compiles, and the others should as well.
        """
        return self._of_other_ranks if self._fitting and self._fitting.issubset(whole) else ()

    def warning(self) -> str:
        """Say how the nearest bundle differs if none fits; empty if one does, or there is none."""
        if self._fitting or not self._unfit:
            return ""
        unfit = Unfit(root=self._root.name, differing=self._unfit)
        return f"{unfit}: {differences(unfit.mismatches)}"
