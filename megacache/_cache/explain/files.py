"""Why the compiled files of a program that keeps its own, such as vLLM, were of no use here: the facts that differ."""

from collections.abc import Mapping, Sequence

from megacache import _compiler
from megacache._bundle import Manifest, file_mismatches
from megacache._cache.root_bundles import Unfit
from megacache._compiler import roots as known_roots
from megacache._runtime import Deadline


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
    return Unfit(root=root.name, differing=differing) if differing and all(differing.values()) else None
