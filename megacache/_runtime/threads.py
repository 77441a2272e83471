"""Work in daemon threads, bounded in bytes and in time.

`concurrent.futures` joins its threads when the interpreter exits, so that one request that never returns would keep
the process alive; these threads are daemons, and a call that ran out of time leaves them behind.
"""

import _thread
import contextvars
import queue
import threading
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from megacache._runtime.deadline import Deadline
from megacache.errors import BundleError, MegacacheError, UnavailableError

Item = TypeVar("Item")
Value = TypeVar("Value")

# S3 gives each connection some 60 MB/s, however fast the network is.
WORKERS = 16
"""Requests under way at once."""
_BEGIN_SECONDS = 5.0
WINDOW = 256 << 20
"""Bytes in flight at most, unless another number is asked for."""


@dataclass(frozen=True, slots=True)
class Done(Generic[Item, Value]):
    """What became of one item."""

    item: Item
    value: Value | None
    fault: MegacacheError | None

    def result(self) -> Value:
        """Give the value, or raise the fault."""
        if self.fault is not None:
            raise self.fault
        return self.value  # type: ignore[return-value]


class Window:
    """A number of bytes that may be in flight at once; one item larger than all of it goes alone."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._used = 0
        self._closed = False
        self._changed = threading.Condition()

    def acquire(self, weight: int) -> None:
        """Wait until `weight` more bytes fit, or the window is closed."""
        with self._changed:
            # An item larger than the window is let in when the window is empty, or it would wait for ever.
            self._changed.wait_for(lambda: self._closed or not self._used or self._used + weight <= self.size)
            self._used += weight

    def release(self, weight: int) -> None:
        """Give bytes back."""
        with self._changed:
            self._used -= weight
            self._changed.notify_all()

    def close(self) -> None:
        """Let all who wait go on."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()


class DaemonExecutor(ThreadPoolExecutor):
    """Runs each call in a thread of its own, which is not joined at exit.

    asyncio resolves host names in its executor's threads. Those of the usual one are joined at exit, so that a name
    server which does not answer would keep the process from ending.
    """

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> "Future[Any]":
        """Start the call."""
        future: Future[Any] = Future()
        future.set_running_or_notify_cancel()

        def work() -> None:
            try:
                future.set_result(fn(*args, **kwargs))
            except BaseException as error:  # noqa: BLE001 - raised where the future is waited for
                future.set_exception(error)

        threading.Thread(target=work, name="megacache-call", daemon=True).start()
        return future


def call(function: Callable[[], Value], *, deadline: Deadline, doing: str) -> Value:
    """Run one blocking function, and raise `DeadlineError` if it does not return in time."""
    deadline.check(doing)
    for done in unordered(lambda _: function(), [None], deadline=deadline, doing=doing):
        return done.result()
    # `unordered` yields one result for each item, or raises.
    raise AssertionError


def unordered(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    deadline: Deadline,
    doing: str,
    workers: int = WORKERS,
    admit: Callable[[Item], None] = lambda _: None,
    after: Callable[[Item], None] = lambda _: None,
) -> Generator[Done[Item, Value]]:
    """Apply `function` to all items at once and yield each as it is done.

    `admit` is called in the order of the items, one at a time, and may wait: a `Window` bounds what is in flight with
    it. `after` is called once the item is on its way to the caller, who does not wait for it, not even at the end.
    Faults of megacache come back in `Done.fault`; any other exception is a bug and is raised here.
    """
    todo, results, feed = iter(items), queue.SimpleQueue[Done[Item, Value] | BaseException](), threading.Lock()
    abandoned = threading.Event()

    def work() -> None:
        try:
            while not abandoned.is_set():
                # Under the lock: the next item is not taken before this one has been admitted.
                with feed:
                    item = next(todo)
                    admit(item)
                # The caller may have gone while this thread waited to be admitted.
                if abandoned.is_set():
                    return
                results.put(_attempt(function, item))
                after(item)
        except StopIteration:
            return
        except BaseException as bug:  # noqa: BLE001 - raised in the thread that waits
            results.put(bug)

    if items:
        _start(work, min(workers, len(items)))
    try:
        for _ in items:
            yield _next(results, deadline, doing)
    finally:
        abandoned.set()


def within_window(
    function: Callable[[Item], Value],
    items: Sequence[Item],
    *,
    weight: Callable[[Item], int],
    size: int = WINDOW,
    workers: int = WORKERS,
    deadline: Deadline,
    doing: str,
) -> Generator[Done[Item, Value]]:
    """Do the same with at most `size` bytes of items in flight; the item that the caller works on counts.

    The caller takes one item at a time; a caller that holds several has a `Window` of its own.
    """
    window = Window(size)
    arrivals = unordered(
        function,
        items,
        deadline=deadline,
        doing=doing,
        workers=workers,
        admit=lambda item: window.acquire(weight(item)),
    )
    try:
        for done in arrivals:
            yield done
            # By now the caller has worked on the item.
            window.release(weight(done.item))
    finally:
        arrivals.close()
        window.close()


def _start(work: Callable[[], None], count: int) -> None:
    """Start daemon threads, as many as there can be; raise `UnavailableError` if not one of them begins."""
    begun = queue.SimpleQueue[None]()

    def begin(context: contextvars.Context) -> None:
        begun.put(None)
        # What the caller has set for itself counts here as well, such as PyTorch's configuration.
        context.run(work)

    started = 0
    with suppress(RuntimeError):  # the limit of threads is reached
        for _ in range(count):
            # `threading.Thread.start` would wait for ever for a thread that had no memory to begin with.
            _thread.start_new_thread(begin, (contextvars.copy_context(),))
            started += 1
    try:
        begun.get(timeout=_BEGIN_SECONDS if started else 0)
    except queue.Empty as error:
        msg = "no thread can be started"
        raise UnavailableError(msg, hint="raise the limits on processes and memory") from error


def _attempt(function: Callable[[Item], Value], item: Item) -> Done[Item, Value] | BaseException:
    try:
        return Done(item, function(item), None)
    except MegacacheError as fault:
        return Done(item, None, fault)
    # An item that is too large for this process is left out like a damaged one: the others may fit.
    except (MemoryError, RecursionError) as error:
        return Done(item, None, BundleError(f"too large for this process: {type(error).__name__}"))
    except BaseException as bug:  # noqa: BLE001 - raised in the thread that waits for the item
        return bug


def _next(
    results: "queue.SimpleQueue[Done[Item, Value] | BaseException]", deadline: Deadline, doing: str
) -> Done[Item, Value]:
    try:
        done = results.get(timeout=deadline.remaining() or 0.001)
    except queue.Empty:
        raise deadline.missed(doing) from None
    if isinstance(done, BaseException):
        raise done
    return done
