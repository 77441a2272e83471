"""The last moment at which this process can do everything that it could before."""

import atexit
import concurrent.futures.thread  # noqa: F401 - its hook must be registered before ours
import threading
from collections.abc import Callable
from contextlib import suppress


def at_shutdown(finish: Callable[[], None]) -> None:
    """Call `finish` in the main thread once the program has ended, the last one that is registered first.

    A program that is ending already calls it no more.
    """
    # Where `atexit` comes, executors refuse work, and without one no host name is resolved any more; children of
    # multiprocessing end without it. What is registered here runs before threads are joined, in reverse order, hence
    # before the hook of `concurrent.futures.thread`, which uses the same list.
    with suppress(RuntimeError):  # the program is ending already
        getattr(threading, "_register_atexit", atexit.register)(finish)
