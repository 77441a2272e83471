"""Work is done at once, bounded in bytes and in time, and nothing of it is lost."""

import math
import subprocess
import sys
import threading

import pytest

from megacache._runtime import Deadline, Window, call, unordered, within_window
from megacache._runtime.threads import WORKERS
from megacache.errors import DeadlineError, MegacacheError, SettingsError, UnavailableError
from tests.kit.builders import finish_workers

HANG = """
import threading
from megacache._runtime import Deadline, unordered
from megacache.errors import DeadlineError

begun = threading.Semaphore(0)
def hang(item):
    begun.release()
    threading.Event().wait()
try:
    list(unordered(hang, range(40), deadline=Deadline.after(0.1), doing="hanging"))
except DeadlineError:
    begun.acquire()
    print("gave up")
"""


def soon() -> Deadline:
    """Give a deadline that no test should reach."""
    return Deadline.after(60)


@pytest.mark.parametrize("count", [0, 1, WORKERS, 10 * WORKERS])
def test_all_items_come_back(count: int) -> None:
    """Each item comes back once with its own value, however many there are."""
    done = list(unordered(str, range(count), deadline=soon(), doing="counting"))
    assert sorted(one.item for one in done) == list(range(count))
    assert all(one.result() == str(one.item) for one in done)


def test_items_are_done_at_once() -> None:
    """As many items are under way at once as there are workers."""
    meeting = threading.Barrier(WORKERS)
    done = unordered(lambda _: meeting.wait(60), [None] * WORKERS, deadline=soon(), doing="meeting")
    assert {one.result() for one in done} == set(range(WORKERS))


def test_what_comes_after_is_not_waited_for() -> None:
    """All items are there while the work after each of them goes on, and that is done for all, the faulty included."""
    go, done = threading.Event(), threading.Semaphore(0)

    def after(_: int) -> None:
        assert go.wait(60)
        done.release()

    def fail(number: int) -> int:
        raise UnavailableError(str(number))

    for work in (str, fail):
        go.clear()
        found = list(unordered(work, range(WORKERS), deadline=soon(), doing="counting", after=after))
        assert len(found) == WORKERS
        go.set()
        assert all(done.acquire(timeout=60) for _ in range(WORKERS))


def test_fault_comes_back_with_its_item() -> None:
    """A fault of megacache spoils its own item only."""

    def odd_only(number: int) -> int:
        if number % 2 == 0:
            raise UnavailableError(str(number))
        return number

    done = {one.item: one for one in unordered(odd_only, range(10), deadline=soon(), doing="counting")}
    assert [n for n in range(10) if done[n].fault is None] == [1, 3, 5, 7, 9]
    assert (done[4].value, str(done[4].fault)) == (None, "4")
    with pytest.raises(UnavailableError, match=r"^4$"):
        done[4].result()


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt])
def test_foreign_exception_is_raised(error: type[BaseException]) -> None:
    """Any other exception is a bug, and is raised where the results are awaited."""

    def fail(_: int) -> None:
        raise error

    with pytest.raises(error):
        list(unordered(fail, range(3), deadline=soon(), doing="failing"))


def test_admission_is_in_order() -> None:
    """Items are admitted in the order given, however their work overlaps."""
    admitted: list[int] = []
    assert len(list(unordered(str, range(100), deadline=soon(), doing="counting", admit=admitted.append))) == 100
    assert admitted == list(range(100))


def test_nothing_is_begun_for_who_has_gone() -> None:
    """When the results are no longer awaited, what is under way ends and nothing else begins."""
    begun, gate = list[int](), threading.Event()

    def wait(item: int) -> None:
        begun.append(item)
        if item:
            gate.wait(60)

    results = unordered(wait, range(1000), deadline=soon(), doing="waiting")
    next(results)
    results.close()
    gate.set()
    finish_workers()
    assert len(begun) <= 2 * WORKERS


def test_worker_that_never_returns_meets_the_deadline() -> None:
    """Who waits for a worker that hangs is told at the deadline, and what was being done."""
    gate = threading.Event()
    with pytest.raises(DeadlineError, match=r"not done within 0\.1 s while hanging"):
        call(gate.wait, deadline=Deadline.after(0.1), doing="hanging")
    gate.set()
    finish_workers()


def test_nothing_is_begun_after_the_deadline() -> None:
    """A call that takes a while is waited for; where no time is left, nothing is asked any more."""
    assert not call(lambda: threading.Event().wait(0.05), deadline=soon(), doing="asking")
    with pytest.raises(DeadlineError, match="while asking"):
        call(lambda: pytest.fail("asked"), deadline=Deadline(at=-1.0, seconds=1.0), doing="asking")


def test_process_ends_although_a_worker_hangs() -> None:
    """A request that never returns does not keep the process alive."""
    ended = subprocess.run([sys.executable, "-c", HANG], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "gave up\n", "")


@pytest.mark.parametrize("seconds", [math.inf, 1e300, 1e10])
def test_endless_timeout_works_or_is_refused(seconds: float) -> None:
    """Who wants to wait for ever may, or is told at once that it cannot be."""
    try:
        deadline = Deadline.after(seconds)
    except SettingsError:
        return
    assert call(lambda: "value", deadline=deadline, doing="waiting") == "value"


def test_threads_that_cannot_start_are_a_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the system gives no more threads, as in a full container or at exit, that is one of megacache's errors."""

    def refuse(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr("_thread.start_new_thread", refuse)
    with pytest.raises(MegacacheError):
        list(unordered(str, range(3), deadline=soon(), doing="counting"))


def acquiring(window: Window, weight: int) -> threading.Event:
    """Ask for admission in another thread, and give the event that tells of it."""
    passed = threading.Event()

    def run() -> None:
        window.acquire(weight)
        passed.set()

    threading.Thread(target=run, daemon=True).start()
    return passed


@pytest.mark.parametrize(
    ("held", "asked"), [([6, 4], 3), ([1], 100), ([100], 1)], ids=["full", "large", "behind large"]
)
def test_window_admits_what_fits(held: list[int], asked: int) -> None:
    """What does not fit waits until enough is given back; what is larger than the whole window goes alone."""
    window = Window(10)
    for weight in held:
        window.acquire(weight)
    passed = acquiring(window, asked)
    assert not passed.wait(0.1)
    window.release(held[0])
    assert passed.wait(60)


def test_closed_window_keeps_nobody() -> None:
    """Closing lets in whoever waits, and all that come later."""
    window = Window(1)
    window.acquire(1)
    waiting = [acquiring(window, 1) for _ in range(3)]
    window.close()
    assert all(passed.wait(60) for passed in waiting)
    window.acquire(100)


def test_window_bounds_what_is_in_flight() -> None:
    """From admission to release, no more than the window is under way, and the window is used to the full."""
    window, lock = Window(30), threading.Lock()
    flying, peak = 0, 0

    def admit(_: int) -> None:
        nonlocal flying, peak
        window.acquire(10)
        with lock:
            flying += 10
            peak = max(peak, flying)

    meeting = threading.Barrier(3)
    results = unordered(lambda _: meeting.wait(60), range(60), deadline=soon(), doing="meeting", admit=admit)
    for _ in results:
        with lock:
            flying -= 10
        window.release(10)
    assert (peak, flying) == (30, 0)


def test_what_the_caller_is_busy_with_is_in_flight() -> None:
    """Nothing is begun that would not fit beside the item which the caller has been given."""
    begun: list[int] = []
    results = within_window(begun.append, range(5), weight=lambda _: 10, size=20, deadline=soon(), doing="working")
    for number, _ in enumerate(results, start=1):
        assert len(begun) <= number + 1
    assert sorted(begun) == [0, 1, 2, 3, 4]


def test_caller_who_stops_leaves_nobody_waiting() -> None:
    """Workers that wait for the window end with the caller, and begin nothing more."""
    begun: list[int] = []
    results = within_window(begun.append, range(50), weight=lambda _: 1, size=1, deadline=soon(), doing="working")
    next(results)
    results.close()
    finish_workers()
    assert begun == [0]
