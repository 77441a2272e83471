"""Run work beside the program, and let it end before the interpreter does."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import TypeVar

from megacache._shutdown import at_shutdown

Value = TypeVar("Value")

_running: set[threading.Thread] = set()


def in_background(work: Callable[[], Value]) -> "Future[Value]":
    """Start work in a thread of its own, which cannot be cancelled; the interpreter waits for it at exit."""
    future: Future[Value] = Future()

    def run() -> None:
        try:
            future.set_result(work())
        except BaseException as error:  # noqa: BLE001 - belongs to whoever asks the future
            future.set_exception(error)
        finally:
            _running.discard(threading.current_thread())

    future.set_running_or_notify_cancel()
    thread = threading.Thread(target=run, name="megacache-publish")
    _running.add(thread)
    try:
        thread.start()
    except RuntimeError:  # no thread is to be had: the work is done all the same
        _running.discard(thread)
        run()
    return future


def _wait_for_all() -> None:
    for thread in tuple(_running):
        thread.join()


at_shutdown(_wait_for_all)
