"""Call functions when torch begins to compile, by whichever entry, and when it has ended.

torch has callbacks for that, but only Dynamo's frames run them. A graph that is compiled ahead of time, or by Inductor
standing alone, as vLLM does it, runs none. All of them pass phases that torch times: the two functions that take these
times are wrapped, and still do what they did.
"""

import functools
import os
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from megacache._compiler.door import door

_PHASES = frozenset(
    {
        # Dynamo's frames, and backwards, which may be compiled long after their forwards
        "entire_frame_compile",
        "entire_backward_compile",
        # `aot_compile`, which torch 2.8 does not time
        "fullgraph_capture",
        "backend_compile",
        # AOTAutograd and Inductor, which `standalone_compile` starts without Dynamo
        "_recursive_pre_grad_passes",
        "create_aot_dispatcher_function",
        "inductor_compile",
        "CompiledArtifact.load",
    }
)
"""What is timed once a graph or more often, and never in torch's compile workers."""

_Call = Callable[[], None]


class _Compilations:
    """The phases under way in this process: in one thread they nest, and those of several threads overlap."""

    def __init__(self) -> None:
        self._calls: list[tuple[_Call, _Call]] = []
        self.forget_phases()

    def forget_phases(self) -> None:
        # In a forked child, too: its parent's threads, which are compiling, do not exist there.
        self._lock = threading.Lock()
        self._open = 0
        self._own = threading.local()

    def tell(self, begins: _Call, ends: _Call) -> None:
        self._calls.append((begins, ends))

    def under_way(self) -> bool:
        return self._open > 0

    def enter(self) -> None:
        depth = getattr(self._own, "depth", 0)
        self._own.depth = depth + 1
        if depth == 0:
            with self._lock:  # another thread waits here until the first compilation of the process may begin
                self._open += 1
                if self._open == 1:
                    _run(begins for begins, _ in self._calls)

    def leave(self) -> None:
        depth = getattr(self._own, "depth", 0)
        if depth == 0:  # it was entered before this process was forked
            return
        self._own.depth = depth - 1
        if depth == 1:
            with self._lock:
                self._open -= 1
                if self._open == 0:
                    _run(ends for _, ends in self._calls)


_compilations = _Compilations()


def on_compilations(begins: _Call, ends: _Call) -> None:
    """Call `begins` before a compilation and `ends` after it, in the thread that compiles.

    Of compilations that overlap, only the first beginning and the last end are told. What the two raise is dropped.
    Raises `CompilerError` if this torch does not tell.
    """
    _watch()
    _compilations.tell(begins, ends)


def compiling() -> bool:
    """Tell whether a compilation is under way in this process; False before `on_compilations` was called."""
    return _compilations.under_way()


@functools.cache
def _watch() -> None:
    with door("hooking into its compilations"):
        import torch._dynamo.utils

        # Private, with these names from torch 2.8 to 2.15: `dynamo_timed` calls them for each phase.
        Trace: Any = torch._dynamo.utils.ChromiumEventLogger  # noqa: N806 - a class
        began, ended = Trace.log_event_start, Trace.log_event_end

        @functools.wraps(began)
        def start(trace: Any, event_name: str, *details: Any, **more: Any) -> Any:
            if event_name in _PHASES:
                _compilations.enter()
            return began(trace, event_name, *details, **more)

        @functools.wraps(ended)
        def end(trace: Any, event_name: str, *details: Any, **more: Any) -> Any:
            # torch ends a phase that failed, too: the function may raise, and the phase has ended all the same.
            try:
                return ended(trace, event_name, *details, **more)
            finally:
                if event_name in _PHASES:
                    _compilations.leave()

        Trace.log_event_start, Trace.log_event_end = start, end


def _run(calls: Any) -> None:
    for call in calls:
        # What goes wrong in a hook must not fail the program's compilation.
        with suppress(Exception):
            call()


os.register_at_fork(after_in_child=_compilations.forget_phases)
