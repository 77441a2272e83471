"""The end of the process: functions that it calls while threads still work, and background work that it waits for."""

import atexit
import concurrent.futures.thread  # noqa: F401 - its hook must be registered before ours
import contextvars
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from typing import TypeVar

Value = TypeVar("Value")

_running: dict[threading.Thread, float | None] = {}
"""Background work, and how many seconds the end of the process waits for it; None is as long as it takes."""


def at_shutdown(finish: Callable[[], None]) -> None:
    """Call `finish` in the main thread once the program has ended, the last one that is registered first.

    If the program is already ending, `finish` is not called.
    """
    # `threading._register_atexit` is private, and in CPython since 3.9.
    # Where `atexit` comes, executors refuse work, and without one no host name is resolved any more; children of
    # multiprocessing end without it. What is registered here runs before threads are joined, in reverse order, hence
    # before the hook of `concurrent.futures.thread`, which uses the same list.
    with suppress(RuntimeError):  # the program is ending already
        getattr(threading, "_register_atexit", atexit.register)(finish)


def in_background(work: Callable[[], Value], *, patience: float | None = None) -> "Future[Value]":
    """Start work in a thread of its own, which cannot be cancelled; the interpreter waits for it at exit.

    With `patience` it waits for so many seconds at most, and the work may be cut off anywhere. What the caller has set
    for itself, such as PyTorch's configuration, counts there as well.
    """
    future: Future[Value] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - belongs to whoever asks the future
            future.set_exception(error)
        finally:
            _running.pop(threading.current_thread(), None)

    # A future that is running cannot be cancelled.
    future.set_running_or_notify_cancel()
    context = contextvars.copy_context()
    thread = threading.Thread(target=context.run, args=(run,), name="megacache-background", daemon=patience is not None)
    _running[thread] = patience
    try:
        thread.start()
    except RuntimeError:  # no thread can be started: the work is done here
        del _running[thread]
        run()
    return future


def wait_no_longer(seconds: float) -> None:
    """Let the end of the process wait no longer than this for work that may be cut off."""
    for thread, patience in tuple(_running.items()):
        if patience is not None:
            _running[thread] = min(patience, seconds)


def _wait_for_all() -> None:
    for thread, patience in tuple(_running.items()):
        thread.join(patience)


at_shutdown(_wait_for_all)
