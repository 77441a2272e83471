"""How this process ends: whether well, and a moment for what is left to do, also when it is told to terminate."""

import atexit
import functools
import sys
import threading
from _sitebuiltins import Quitter
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from megacache._runtime import at_shutdown

_failed = threading.Event()


def failed() -> bool:
    """Tell whether the program has ended, or is ending, by an exception or with an exit code other than 0.

    An exit code that is raised as `SystemExit`, and not by `sys.exit`, `exit` or `quit`, is not noticed.
    """
    last = getattr(sys, "last_value", None)  # what ended the main thread, whatever hook prints it
    crashed = last is not None and not isinstance(last, KeyboardInterrupt)
    return crashed or _failed.is_set() or bool(_worker_exit_code())


def goes_on() -> None:
    """Note that the program is not ending after all: it has caught its own exit."""
    _failed.clear()


def on_ending(finish: Callable[[], None]) -> None:
    """Call `finish` once the program has ended, while threads, executors and host names can still be used.

    It is called in the main thread, and once more after other threads have ended, if any outlive that. Ends that never
    return to Python, such as `os._exit` or `SIGKILL`, are not noticed.
    """
    _notice_failures()
    at_shutdown(functools.partial(_finish, finish))


def threads_go_on() -> bool:
    """Tell whether there are threads that the interpreter waits for, and that may compile after the main thread."""
    return any(not thread.daemon for thread in threading.enumerate() if thread is not threading.main_thread())


def _finish(finish: Callable[[], None]) -> None:
    # To join threads here would be too early: one that waits for the end of the main thread would wait for ever, and
    # so would the workers of `concurrent.futures`. What `atexit` calls comes after the interpreter has joined them.
    if threads_go_on():
        atexit.register(finish)
    finish()


def _notice_failures() -> None:
    leave, quit_ = sys.exit, Quitter.__call__

    @functools.wraps(leave)
    def note_code(code: Any = None, /) -> Any:
        _note(code)
        leave(code)

    @functools.wraps(quit_)
    def note_code_of_quitter(self: Quitter, code: Any = None) -> Any:
        _note(code)
        quit_(self, code)

    sys.exit = note_code
    Quitter.__call__ = note_code_of_quitter  # type: ignore[method-assign]  # the `exit` and `quit` of module `site`


def _note(code: Any) -> None:
    if code is not None and code != 0 and threading.current_thread() is threading.main_thread():
        _failed.set()


def _worker_exit_code() -> Any:
    """Find the exit code of a child of multiprocessing that is ending, which nothing else tells; None elsewhere."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is BaseProcess._bootstrap.__code__:  # type: ignore[attr-defined]
            return frame.f_locals.get("exitcode")
        frame = frame.f_back
    return None
