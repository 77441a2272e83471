"""Read what torch has counted in this process, importing nothing and changing nothing."""

import sys
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from megacache._compiler import conditions, events
from megacache._compiler.door import compile_lock, door
from megacache._compiler.kernels import compiled_kernels
from megacache._runtime import Deadline
from megacache.errors import MegacacheError

_COUNTERS = {"inductor": "fxgraph_cache", "aot_autograd": "autograd_cache"}
# A compilation may hold the lock for minutes, and a receipt should not take so long.
_LOCK_SECONDS = 1.0
_Told = TypeVar("_Told")

Name = tuple[str, str, int]
"""Kind, key and size of an artifact."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookups:
    """What became of the graphs that one of PyTorch's caches was asked for."""

    hit: int = 0
    """Found, whether a warm start or an earlier process left them in the cache folder."""
    missed: int = 0
    """Not found, and compiled."""
    guard_missed: int | None = 0
    """Those of `missed` whose key was there with guards that did not hold, as for another size; None if unknown."""
    rank_missed: int = 0
    """Those of `missed` that were found here and not by every rank, if PyTorch asks them all: see `ranks_agree`."""
    bypassed: int = 0
    """Compiled without a lookup, or not saved: PyTorch cannot cache them."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """PyTorch's reason for each bypass, with the number of its graphs; `unknown` before the first warm start."""

    @property
    def total(self) -> int:
        """Graphs in all."""
        return self.hit + self.missed + self.bypassed

    def __str__(self) -> str:
        notes = [f"{self.guard_missed} missed by their guards"] if self.guard_missed else []
        notes += [f"{self.rank_missed} missed by another rank"] if self.rank_missed else []
        notes += [f"{self.bypassed} bypassed"] if self.bypassed else []
        return f"{self.hit} of {self.total} graphs hit{_in_brackets(notes)}"


def _in_brackets(notes: list[str]) -> str:
    return f" ({', '.join(notes)})" if notes else ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Activity:
    """What torch's caches did in this process; None is for what cannot be read from this torch."""

    inductor: Lookups | None
    aot_autograd: Lookups | None
    cpp_kernels: int | None
    """Libraries that the C++ compiler made; None unless it was watched."""
    cpp_runs: int | None
    """Runs of the C++ compiler, also those for probes and headers."""
    cpp_seconds: float | None
    """What they took."""
    triton_kernels: int | None
    """Kernels that Triton compiled; None unless it was watched."""
    seconds_saved: float | None
    """None unless lookups were watched."""
    counters_cleared: bool
    """True if torch told of more lookups than it has counted."""
    recorded: frozenset[Name] | None
    """What torch has recorded, on hits and on misses."""
    missed: frozenset[tuple[str, str]] = frozenset()
    """Kind and key of the lookups that missed, as far as they were observed."""
    refused: Mapping[str, int] = field(default_factory=dict)
    """Loaded artifacts that call a custom operator which is defined otherwise here, by operator."""
    ranks_agree: bool | None = None
    """True if torch drops a hit that not every rank of the job has."""


def activity() -> Activity:
    """Collect the counts of lookups, of kernels and of seconds."""
    watched = events.watching()
    return Activity(
        inductor=_told(lambda: _lookups("inductor"), Lookups()),
        aot_autograd=_told(lambda: _lookups("aot_autograd"), Lookups()),
        cpp_kernels=sum(build.kernel for build in events.builds()) if watched else None,
        cpp_runs=_told(lambda: len(_cpp_builds()), 0),
        cpp_seconds=_told(lambda: sum(_cpp_builds()), 0.0),
        triton_kernels=compiled_kernels(),
        seconds_saved=sum(lookup.seconds_saved for lookup in events.lookups()) if watched else None,
        counters_cleared=bool(_told(lambda: any(map(_is_cleared, _COUNTERS)), False)),
        recorded=_told(_recorded, frozenset[Name]()),
        missed=frozenset((lookup.kind, lookup.key) for lookup in events.lookups() if lookup.state == "miss"),
        refused=conditions.refused(),
        ranks_agree=_told(_ranks_agree, None),
    )


def _told(read: Callable[[], _Told], nothing: _Told) -> _Told | None:
    """Read a number; give `nothing` before torch's compiler is imported, and None if it cannot be read."""
    if "torch._dynamo.utils" not in sys.modules:
        return nothing
    try:
        with door("reading its counters"):
            return read()
    except MegacacheError:
        return None


def _lookups(kind: str) -> Lookups:
    # torch looks a graph up again once it has specialised a number in it: these lookups are of one graph.
    again = Counter(lookup.state for lookup in events.superseded() if lookup.kind == kind)
    counted, observed = _counted(kind) - again, _observed(kind) - again
    guards_told = kind == "aot_autograd" or events.watching()  # of Inductor's, torch keeps no count
    bypassed = max(counted["bypass"], observed["bypass"])
    reasons = Counter(lookup.reason for lookup in events.lookups() if lookup.kind == kind and lookup.reason)
    reasons -= Counter(lookup.reason for lookup in events.superseded() if lookup.kind == kind and lookup.reason)
    reasons[events.UNKNOWN] += bypassed - reasons.total()
    # torch's counters may have been cleared, and the hooks may have been set too late: the greater number is right.
    return Lookups(
        hit=max(counted["hit"], observed["hit"]),
        missed=max(counted["miss"], observed["miss"]),
        guard_missed=max(counted["guard_miss"], observed["guard_miss"]) if guards_told else None,
        rank_missed=counted["cross_rank_miss"],
        bypassed=bypassed,
        reasons=dict(+reasons),
    )


def _counted(kind: str) -> Counter[str]:
    from torch._dynamo.utils import counters

    table: Mapping[str, int] = counters.get(kind, {})
    prefix = _COUNTERS[kind]
    states = ("hit", "miss", "bypass", "guard_miss", "cross_rank_miss")
    return Counter({state: table.get(f"{prefix}_{state}", 0) for state in states})


def _observed(kind: str) -> Counter[str]:
    lookups = [lookup for lookup in events.lookups() if lookup.kind == kind]
    guards = sum(lookup.guard_missed for lookup in lookups)
    return Counter(lookup.state for lookup in lookups) + Counter(guard_miss=guards)


def _ranks_agree() -> bool | None:
    import torch._functorch.config

    value: bool | None = getattr(torch._functorch.config, "_sync_cache_decision_cross_ranks", None)
    return value


def _is_cleared(kind: str) -> bool:
    counted, observed = _counted(kind), _observed(kind)
    return any(observed[state] > counted[state] for state in ("hit", "miss", "bypass"))


def _cpp_builds() -> Sequence[float]:
    from torch._dynamo.utils import compilation_time_metrics

    observed = tuple(build.seconds for build in events.builds())
    # `torch._dynamo.reset` empties what torch itself keeps: the longer list is the right one.
    return max(observed, tuple(compilation_time_metrics.get("compile_file", ())), key=len)


def _recorded() -> frozenset[Name]:
    from torch.compiler._cache import CacheArtifactManager

    # Torch is not asked to save: that would change what its next save gives.
    with compile_lock(Deadline.after(_LOCK_SECONDS)):
        seen = tuple(CacheArtifactManager._seen_artifacts)
    return frozenset((artifact.type(), artifact.key, len(artifact.content)) for artifact in seen)
