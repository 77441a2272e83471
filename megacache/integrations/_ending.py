"""How this process ends: whether well, and a moment for what is left to do, also when it is told to terminate."""

import functools
import sys
import threading
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Any

from megacache._shutdown import at_shutdown
from megacache.integrations.site import megacache_on_compile

_failed = threading.Event()


def failed() -> bool:
    """Tell whether the program has ended, or is ending, by an exception or with an exit code other than 0.

    An exit code that is raised as `SystemExit`, and not by `sys.exit`, is not noticed.
    """
    last = getattr(sys, "last_value", None)  # what ended the main thread, whatever hook prints it
    crashed = last is not None and not isinstance(last, KeyboardInterrupt)
    return crashed or _failed.is_set() or bool(_worker_exit_code())


def goes_on() -> None:
    """Note that the program is not ending after all: it has caught its own exit."""
    _failed.clear()


def on_ending(finish: Callable[[], None]) -> None:
    """Call `finish` once the program has ended, while threads, executors and host names can still be used.

    It is called in the main thread. For `SIGTERM`, if nobody else handles it, the handler that is set here finishes the
    autostart of this process; it then dies of the signal.
    What never returns to Python, such as `os._exit` or `SIGKILL`, is not heard.
    """
    _notice_failures()
    at_shutdown(finish)
    megacache_on_compile.handle_sigterm()


def _notice_failures() -> None:
    leave = sys.exit

    @functools.wraps(leave)
    def note_code(code: Any = None, /) -> Any:
        if code is not None and code != 0 and threading.current_thread() is threading.main_thread():
            _failed.set()
        leave(code)

    sys.exit = note_code


def _worker_exit_code() -> Any:
    """Find the exit code of a child of multiprocessing that is ending, which nothing else tells; None elsewhere."""
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        if frame.f_code is BaseProcess._bootstrap.__code__:  # type: ignore[attr-defined]
            return frame.f_locals.get("exitcode")
        frame = frame.f_back
    return None
