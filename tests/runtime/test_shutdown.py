"""What is left to do at the end of a process is done while everything still works."""

import subprocess
import sys

import pytest

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
