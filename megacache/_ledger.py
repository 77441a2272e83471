"""Keep what the warm starts of this process cost, and draw up what they were worth."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from megacache import _compiler
from megacache._bundle import ArtifactRef
from megacache._receipt import GRAPH_KINDS, Receipt
from megacache._results import WarmResult
from megacache._session import loaded_artifacts


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """What one warm start took."""

    seconds: float
    files: int
    bytes_stored: int
    bytes_raw: int


# Appending needs no lock, which a fork could leave locked; a forked child keeps this as it keeps PyTorch's counters.
_costs: list[_Cost] = []


def enter(result: WarmResult) -> None:
    """Enter what a warm start cost, however it ended."""
    _costs.append(
        _Cost(
            seconds=result.seconds["total"],
            files=result.files,
            bytes_stored=result.bytes_stored,
            bytes_raw=result.bytes_raw,
        )
    )


def draw_up() -> Receipt:
    """Set what the warm starts cost against what PyTorch did with it; nothing is asked of a store, or imported."""
    costs, loaded, activity = tuple(_costs), loaded_artifacts(), _compiler.activity()
    return Receipt(
        warm_starts=len(costs),
        seconds_warming=sum(cost.seconds for cost in costs),
        bytes_stored=sum(cost.bytes_stored for cost in costs),
        bytes_raw=sum(cost.bytes_raw for cost in costs),
        files=sum(cost.files for cost in costs),
        loaded=dict(Counter(ref.kind for ref in loaded)),
        unused=_unused(loaded, activity),
        inductor=activity.inductor,
        aot_autograd=activity.aot_autograd,
        cpp_kernels=activity.cpp_kernels,
        cpp_runs=activity.cpp_runs,
        cpp_seconds=activity.cpp_seconds,
        triton_kernels=activity.triton_kernels,
        seconds_saved=activity.seconds_saved,
        counters_cleared=activity.counters_cleared,
    )


def _unused(loaded: Collection[ArtifactRef], activity: _compiler.Activity) -> Mapping[str, int] | None:
    """Count what PyTorch has not recorded, as it does on a hit.

    Sizes stand for contents, whose digests would take a second for a gigabyte: two variants of one key that have the
    same size count as used if one of them is. Graphs that hit and left no record at all were compiled where the
    recorder does not see them: then nothing is known.
    """
    hits = [lookups.hit for lookups in (activity.inductor, activity.aot_autograd) if lookups is not None]
    if activity.recorded is None or (any(hits) and not activity.recorded):
        return None
    graphs = [ref for ref in loaded if ref.kind in GRAPH_KINDS]
    return dict(Counter(ref.kind for ref in graphs if (ref.kind, ref.key, ref.size) not in activity.recorded))
