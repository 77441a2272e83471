"""Observe what torch looks up, and what it has compilers make.

torch keeps no reason for a bypass: it logs it at a level that is off by default, and the events of its trace hold it,
written or not. So the functions that take the events and that run commands are wrapped, and each still does what it
did. That changes no setting, no logger and no output.
"""

import functools
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from megacache._compiler.door import door
from megacache._compiler.kernels import watch_kernels
from megacache._runtime import kept
from megacache.errors import CompilerError

UNKNOWN = "unknown"
_CACHES = {"fx_graph_cache": "inductor", "autograd_cache": "aot_autograd"}
_KERNEL = ".main.so"
_MAX_REASON = 200


@dataclass(frozen=True, slots=True, kw_only=True)
class Lookup:
    """One lookup that torch told of.

    Those of the FX graph cache that come with a hit of AOTAutograd's are not told of, only counted.
    """

    kind: str
    """`inductor` or `aot_autograd`: the kind of artifact that was looked for."""
    state: str
    """`hit`, `miss` or `bypass`."""
    guard_missed: bool
    """True if the key was there, and its guards did not hold."""
    reason: str
    """Why the cache was bypassed; empty if it was not."""
    seconds_saved: float
    """What the graph had taken to compile where it was compiled."""
    key: str = ""
    """What was looked for; empty if torch does not tell."""
    compilation: str = ""
    """The number that torch gave the compilation; empty if it tells none."""
    attempt: int = 0
    """How often torch had begun that compilation anew: it looks a graph up again when it has specialised a number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Build:
    """One run of the C++ compiler."""

    kernel: bool
    """True if it made the library of a kernel; it also probes the CPU, and reads headers."""
    seconds: float


# Appending to a list needs no lock, which a fork could leave locked for good: kernels are built in several threads.
_lookups: list[Lookup] = kept([])
_builds: list[Build] = kept([])
_watched: list[str] = []


def watch() -> None:
    """Set the hooks; calling it again changes nothing, and a torch without these functions is left alone."""
    if _watched:
        return
    with suppress(CompilerError), door("hooking into its events"):
        import torch._inductor.cpp_builder as builder
        from torch._dynamo.utils import ChromiumEventLogger as Trace

        places: list[tuple[Any, str, Callable[..., Any]]] = [
            (Trace, "log_instant_event", _observed),
            (builder, "run_compile_cmd", _timed),
        ]
        # All are found before one is replaced: half of the hooks would count half of what happens.
        found = [(place, name, wrapped(getattr(place, name))) for place, name, wrapped in places]
        for place, name, function in found:
            setattr(place, name, function)
            _watched.append(name)
    with suppress(CompilerError), door("hooking into Triton"):
        watch_kernels()


def watching() -> bool:
    """Tell whether `watch` has set its hooks."""
    return bool(_watched)


def lookups() -> tuple[Lookup, ...]:
    """Give the lookups observed so far."""
    return tuple(_lookups)


def superseded() -> tuple[Lookup, ...]:
    """Give those of them that torch made again in a later attempt at the same compilation: they are of no graph."""
    last: dict[tuple[str, str], Lookup] = {}
    found = []
    for lookup in lookups():
        before = last.get((lookup.kind, lookup.compilation))
        if lookup.compilation and before is not None and before.attempt < lookup.attempt:
            found.append(before)
        last[lookup.kind, lookup.compilation] = lookup
    return tuple(found)


def builds() -> tuple[Build, ...]:
    """Give the runs of the C++ compiler observed so far."""
    return tuple(_builds)


def _observed(log_instant_event: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(log_instant_event)
    def tell(trace: object, *event: Any, **options: Any) -> Any:
        with suppress(Exception):  # if torch tells it in another way, its compilation goes on
            _note_event(*event, **options)
        return log_instant_event(trace, *event, **options)

    return tell


def _timed(run_compile_cmd: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(run_compile_cmd)
    def run(*command: Any, **options: Any) -> Any:
        started = time.perf_counter()
        try:
            return run_compile_cmd(*command, **options)
        finally:
            # Callers may give the command by position or by name.
            kernel = _KERNEL in str((*command, *options.values()))
            _builds.append(Build(kernel=kernel, seconds=time.perf_counter() - started))

    return run


def _note_event(event_name: str, _time_ns: int, metadata: Mapping[str, Any] | None = None, *_: Any) -> None:
    cache, _sep, state = event_name.rpartition("_")
    if cache not in _CACHES or state not in {"hit", "miss", "bypass"}:
        return
    metadata = metadata or {}
    compilation, attempt = _attempt()
    # Inductor tells the time saved in nanoseconds, AOTAutograd in milliseconds.
    _lookups.append(
        Lookup(
            kind=_CACHES[cache],
            state=state,
            guard_missed=state == "miss" and metadata.get("cache_status_detailed") == "guard_miss",
            reason=_reason(metadata) if state == "bypass" else "",
            seconds_saved=metadata.get("time_saved_ns", 0) / 1e9 + metadata.get("time_saved_ms", 0) / 1e3,
            key=str(metadata.get("key") or ""),
            compilation=compilation,
            attempt=attempt,
        )
    )


def _attempt() -> tuple[str, int]:
    from torch._guards import CompileContext

    trace = getattr(CompileContext, "current_trace_id", lambda: None)()
    return ("", 0) if trace is None else (str(trace.compile_id), trace.attempt)


def _reason(metadata: Mapping[str, Any]) -> str:
    # The first line only: the rest may be a page of the program's code.
    first, _, _ = str(metadata.get("cache_bypass_reason") or UNKNOWN).strip().partition("\n")
    return first[:_MAX_REASON].strip() or UNKNOWN
