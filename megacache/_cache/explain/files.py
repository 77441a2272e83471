"""Why the compiled files of a program that keeps its own, such as vLLM, were of no use here: the facts that differ."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from megacache import _compiler
from megacache._bundle import Manifest, Mismatch, file_mismatches
from megacache._compiler import roots as known_roots
from megacache._runtime import Deadline, counted


@dataclass(frozen=True, slots=True, kw_only=True)
class Unfit:
    """Bundles with files of one program, of which none fits here."""

    root: str
    bundles: int
    nearest: str
    """The id of the one with the fewest facts that differ."""
    mismatches: tuple[Mismatch, ...]
    """These facts."""

    def __str__(self) -> str:
        held = f"files of {self.root} are published in {counted(self.bundles, 'bundle')}, and none of them fits"
        return f"{held}; the nearest, {self.nearest}, differs"


def unfit_files(manifests: Sequence[Manifest], deadline: Deadline) -> tuple[Unfit, ...]:
    """Compare this process with the bundles of each program that it runs; nothing is said of one that has what fits.

    Raises `CompilerError` if this process cannot be described.
    """
    common = _compiler.toolchain(deadline) if known_roots.registered() else {}
    return tuple(filter(None, (_unfit(root, common, manifests) for root in known_roots.registered())))


def _unfit(root: known_roots.Root, common: Mapping[str, str], manifests: Sequence[Manifest]) -> Unfit | None:
    here = known_roots.guard(common, [root.name])
    differing = {
        one.bundle: file_mismatches(here, one.files.guard, roots=[root.name], device_type=one.environment.device_type)
        for one in manifests
        if any(file.root == root.name for file in one.files.index)
        and root.concerns([file.path for file in one.files.index])
    }
    if not differing or not all(differing.values()):
        return None
    nearest = min(differing, key=lambda bundle: len(differing[bundle]))
    return Unfit(root=root.name, bundles=len(differing), nearest=nearest, mismatches=tuple(differing[nearest]))
