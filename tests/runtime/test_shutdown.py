"""What is left to do at the end of a process is done while everything still works."""

import subprocess
import sys
from contextvars import ContextVar

import pytest

from megacache._runtime import in_background

PROGRAM = """
import multiprocessing, sys
from concurrent.futures import ThreadPoolExecutor
from megacache._runtime import at_shutdown

def say(text):
    print(text, flush=True)

def work():
    at_shutdown(lambda: say("first"))
    at_shutdown(lambda: ThreadPoolExecutor().submit(say, "last").result())
    at_shutdown(lambda: at_shutdown(lambda: say("too late")))

if __name__ == "__main__":
    if sys.argv[1:]:
        process = multiprocessing.get_context(sys.argv[1]).Process(target=work)
        process.start()
        process.join()
    else:
        work()
"""


@pytest.mark.parametrize("method", ["", "fork"])
def test_what_is_left_is_done_in_reverse_order(method: str) -> None:
    """Executors still take work, in a child of multiprocessing as well; what comes too late is dropped."""
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *filter(None, [method])],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert (done.stdout.split(), done.stderr) == (["last", "first"], "")


def test_background_work_sees_what_its_caller_has_set() -> None:
    """PyTorch keeps its configuration in context variables."""
    setting = ContextVar("setting", default="usual")
    token = setting.set("own")
    try:
        assert in_background(setting.get).result(timeout=60) == "own"
    finally:
        setting.reset(token)


PATIENT = """
import sys, time
from megacache._runtime import in_background, wait_no_longer

def work():
    time.sleep(float(sys.argv[1]))
    print("done", flush=True)

in_background(work, patience=float(sys.argv[2]))
if sys.argv[3:]:
    wait_no_longer(float(sys.argv[3]))
"""


@pytest.mark.parametrize(
    ("arguments", "told"),
    [(["0.5", "300"], "done\n"), (["300", "0.1"], ""), (["300", "300", "0"], ""), (["0.5", "300", "400"], "done\n")],
    ids=["in time", "too late", "shortened", "not lengthened"],
)
def test_work_that_may_be_cut_off_is_waited_for_with_patience(arguments: list[str], told: str) -> None:
    """The end of the process waits for it as long as was said, and no longer."""
    done = subprocess.run(
        [sys.executable, "-c", PATIENT, *arguments], capture_output=True, text=True, timeout=60, check=True
    )
    assert (done.stdout, done.stderr) == (told, "")
