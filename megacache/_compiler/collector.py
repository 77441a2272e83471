"""Defer Python's full garbage collections until torch has compiled.

Importing torch's compiler, and each trace, create hundreds of thousands of objects and drop few of them, and every
full collection walks the whole heap. Young objects are collected as usual. torch 2.15 and later do the same while they
compile, and read the same variable.
"""

import functools
import gc
import os
import sys
import sysconfig
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from megacache._compiler.compilations import on_compilations
from megacache._settings import full_collection_threshold
from megacache.errors import CompilerError

_COMPILER = "torch._inductor.compile_fx"
# As in torch 2.15.
_USUAL = 1000
"""How many collections of the middle generation come before a full one; Python's own number is 10."""


class _Collector:
    """Sets the thresholds of Python's collector for spans of time, and gives them back."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        # The thresholds belong to the whole process: of spans that overlap, the last one gives them back. A span of
        # `on_compilations` may end in another thread than it began in, and a block may lie within it.
        self._open = 0
        self._before = self._meanwhile = (0, 0, 0)

    def defer(self) -> None:
        with self._lock:
            self._open += 1
            if self._open == 1:
                young, middle, old = self._before = gc.get_threshold()
                # A program that waits for longer than this keeps its own number.
                gc.set_threshold(young, middle, max(old, _threshold()))
                self._meanwhile = gc.get_threshold()

    def resume(self) -> None:
        with self._lock:
            if self._open == 0:  # it began before this process was forked
                return
            self._open -= 1
            # What the program has set meanwhile is what it wants.
            if self._open == 0 and gc.get_threshold() == self._meanwhile:
                gc.set_threshold(*self._before)

    def forget_spans(self) -> None:
        # Another thread of the parent may have held the lock. A child never sees the end of the span it was forked in.
        self._lock = threading.Lock()
        if self._open:
            self._open = 1
            self.resume()


_collector = _Collector()
os.register_at_fork(after_in_child=_collector.forget_spans)


@contextmanager
def full_collections_deferred() -> Iterator[None]:
    """Defer full collections within a block; if it imports torch's compiler, none follows at once."""
    imported = _COMPILER in sys.modules
    _collector.defer()
    try:
        yield
    finally:
        _collector.resume()
        if not imported and _COMPILER in sys.modules:
            _begin_anew()


@functools.cache
def defer_while_compiling() -> None:
    """Defer full collections within compilations from now on, unless torch does so itself."""
    with suppress(CompilerError):
        import torch._dynamo.config

        if not hasattr(torch._dynamo.config, "gc_gen2_threshold_during_compile"):
            on_compilations(_collector.defer, _collector.resume)


def _begin_anew() -> None:
    """Let Python count from here to its next full collection."""
    # Thawed, what was frozen is in the oldest generation. What the program has frozen itself would be thawed as well.
    if _threshold() and not gc.get_freeze_count():
        gc.freeze()
        gc.unfreeze()


def _threshold() -> int:
    # A collector without generations never reads the third threshold.
    if sysconfig.get_config_var("Py_GIL_DISABLED") == 1:
        return 0
    return full_collection_threshold(_USUAL)
