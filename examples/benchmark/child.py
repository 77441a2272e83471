"""The process under test: do one task, given as JSON, and say what was measured as JSON on the last line."""

import time

BEGUN = time.time()

import json  # noqa: E402 - what is imported counts, the clock included
import os  # noqa: E402
import sys  # noqa: E402
from typing import Any  # noqa: E402


def perform(task: str, options: dict[str, Any]) -> dict[str, Any]:
    """Do a task by name."""
    # The tasks are imported late: what one of them needs must not be paid by another.
    if task in {"prepare", "first_output"}:
        from examples.benchmark import compiling

        measured: dict[str, Any] = getattr(compiling, task)(**options)
        return measured
    from examples.benchmark.transferring import TASKS

    return dict(TASKS[task](**options))


if __name__ == "__main__":
    answer = perform(sys.argv[1], json.loads(sys.argv[2]))
    sys.stdout.write(f"\n{json.dumps({'begun': BEGUN, **answer})}\n")
    sys.stdout.flush()
    # All is told and kept. An exit may wait for torch's compile workers for minutes, out of what others have left.
    os._exit(0)
