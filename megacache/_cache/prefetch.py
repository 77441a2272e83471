"""A warm start that has begun, and is finished when somebody asks for it, or before the first compilation."""

import functools
import os
import threading
from collections.abc import Callable
from contextlib import suppress

from megacache import _compiler
from megacache._cache.results import WarmResult
from megacache._runtime import Deadline, kept
from megacache.errors import CompilerError, DeadlineError

_TRY_SECONDS = 0.1
Steps = Callable[[], WarmResult]


class Prefetch:
    """What `prefetch` has begun: the download goes on in the background.

    PyTorch's caches are filled when `result` is called, or when the process begins to compile, whichever comes first.
    A process has one at a time: the next `prefetch` or `warm` finishes it before it begins. A forked child
    begins anew when it asks for the result, or compiles. A program that ends sooner does not wait for it.
    """

    def __init__(self, begun: "Begun", *, strict: bool) -> None:
        self._begun = begun
        self._strict = strict

    def result(self) -> WarmResult:
        """Fill PyTorch's caches with what has come, unless that is done, and tell how the warm start ended.

        It waits for the store until the `timeout` is over, which began with the prefetch; what has come by then is
        loaded.

        Raises:
            MegacacheError: Only if strict, as `Cache.warm` does.
        """
        result = self._begun.finish()
        return result.raise_for_status() if self._strict else result


class Begun:
    """A warm start of which some steps are left to do."""

    def __init__(
        self,
        steps: Steps,
        anew: Steps,
        conclude: Callable[[Steps], WarmResult],
        *,
        terms: object,
        seconds: float,
        waits: bool = False,
    ) -> None:
        """Take what is left to do, what does all of it, and what makes a result of either."""
        self._steps = steps
        self._anew = anew
        self._conclude = conclude
        self._seconds = seconds
        self._result: WarmResult | None = None
        self._finisher: int | None = None
        self.terms = terms
        """What was asked for: who asks for the same gets the same result."""
        self.waits = waits
        """Whether it waits for other workers."""

    def finish(self) -> WarmResult:
        """Do what is left to do, in one thread, and give the result to all that ask."""
        wait: Deadline | None = None
        while self._result is None:
            wait = wait or Deadline.after(self._seconds)
            # A thread that compiles finishes it first, and keeps the lock for as long as it compiles.
            with suppress(DeadlineError), _compiler.compile_lock(Deadline.after(_TRY_SECONDS)):
                self.finish_once()
            # A thread that is finishing it has bounds of its own, which may be later.
            if self._result is None and self._finisher is None and not wait.remaining():
                return self._conclude(_raising(wait.missed("waiting for a compilation to end")))
        return self._result

    def finish_once(self) -> None:
        """Do what is left to do, unless that is done."""
        if self._result is not None:
            return
        # What is interrupted here is begun anew.
        steps, self._steps = self._steps, self._anew
        self._finisher = threading.get_ident()
        try:
            self._result = self._conclude(steps)
        finally:
            self._finisher = None
        _pending.pop(id(self), None)

    def is_being_finished_here(self) -> bool:
        """Tell whether this thread is in the middle of it: to load may be to compile, and a signal may interrupt it."""
        return self._finisher == threading.get_ident()

    def after_fork(self) -> None:
        """Begin anew in a forked child, which has no thread that downloads."""
        self._steps, self._finisher = self._anew, None


_pending: dict[int, Begun] = kept({})


def remember(begun: Begun) -> None:
    """Let what has begun be finished before the first compilation."""
    _pending[id(begun)] = begun
    with suppress(CompilerError):  # where torch does not tell of it, whoever asks for the result finishes it
        _watch()


def pending_for(terms: object) -> Begun | None:
    """Give what has begun if it is what is asked for."""
    return next((one for one in tuple(_pending.values()) if one.terms == terms), None)


def finish_pending() -> None:
    """Finish what has begun."""
    for one in tuple(_pending.values()):
        if not one.is_being_finished_here():
            one.finish()


@functools.cache
def _watch() -> None:
    _compiler.on_compilations(finish_pending, lambda: None)


def _raising(error: DeadlineError) -> Steps:
    def fail() -> WarmResult:
        raise error

    return fail


def _after_fork() -> None:
    for one in _pending.values():
        one.after_fork()


os.register_at_fork(after_in_child=_after_fork)
