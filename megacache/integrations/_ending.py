"""How this process ends: whether well, and a moment for what is left to do, also when it is told to terminate."""

import atexit
import concurrent.futures.thread  # noqa: F401 - its hook must be registered before ours
import functools
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.process import BaseProcess
from types import FrameType, TracebackType
from typing import Any

from megacache.integrations.site import megacache_on_compile

_failed = threading.Event()


def failed() -> bool:
    """Tell whether the program has ended, or is ending, by an exception or with an exit code other than 0."""
    return _failed.is_set() or bool(_worker_exit_code())


def on_ending(finish: Callable[[], None]) -> None:
    """Call `finish` once the program has ended, while threads, executors and host names can still be used.

    It is called in the main thread. For `SIGTERM`, if nobody else handles it, the handler that is set here asks the one
    who attends to this process; it then dies of the signal.
    What never returns to Python, such as `os._exit` or `SIGKILL`, is not heard.
    """
    _notice_failures()
    # What is registered here runs in reverse order, and before executors refuse work; multiprocessing's children run
    # it, too.
    with suppress(RuntimeError):  # the program is ending already
        getattr(threading, "_register_atexit", atexit.register)(finish)
    megacache_on_compile.handle_sigterm()


def _notice_failures() -> None:
    hook, leave = sys.excepthook, sys.exit

    @functools.wraps(hook)
    def note_exception(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
        if not issubclass(kind, KeyboardInterrupt):
            _failed.set()
        hook(kind, error, traceback)

    @functools.wraps(leave)
    def note_code(code: Any = None, /) -> Any:
        if code is not None and code != 0 and threading.current_thread() is threading.main_thread():
            _failed.set()
        leave(code)

    sys.excepthook, sys.exit = note_exception, note_code


def _worker_exit_code() -> Any:
    """Find the exit code of a child of multiprocessing that is ending, which nothing else tells; None elsewhere."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is BaseProcess._bootstrap.__code__:  # type: ignore[attr-defined]
            return frame.f_locals.get("exitcode")
        frame = frame.f_back
    return None
