"""Workers that publish, warm and copy, to be killed: forked out of an interpreter that has imported what they need.

It reads a round a line, as JSON: the jobs of workers that start at once, and when each is killed. It answers with how
each ended and with what those told that came to their end. The library's own code runs from the record of what was
compiled to the last rename; PyTorch itself, which takes seconds to import, is left out.
"""

import itertools
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import fsspec.implementations.local  # noqa: F401 - before the fork
import gcsfs  # noqa: F401
import s3fs  # noqa: F401

from megacache import _compiler
from megacache._bundle import chunk
from megacache._cache import publish as publishing
from megacache._cache.session import Session
from megacache._catalog import Inventory, Selected, Transfer
from megacache._runtime import Deadline
from megacache._store import Store
from tests.kit.builders import artifact, call_on, compiled_file, environment, noise, warm_up
from tests.kit.torchless import recorded

Job = dict[str, Any]
Address = dict[str, Any]
"""A URL and its options."""

CHUNK_SIZE = 20_000
"""Bytes of a chunk here, so that a bundle has several."""
STEPS = frozenset({"open", "os.chmod", "os.link", "os.mkdir", "os.remove", "os.rename"})
"""What changes a disk, or comes just before."""
_LONGEST = 60.0


def open_store(address: Address) -> Store:
    """Open a store."""
    return Store.open(**address, deadline=Deadline.after(_LONGEST))


def publish(store: Address, *, seed: int, worker: int) -> str:
    """Publish what workers of one seed have compiled each for itself: the same keys, other contents."""
    artifacts = [artifact(f"f{seed}x{n}", noise(9_000, seed * 1000 + n * 10 + worker)) for n in range(4)]
    files = [compiled_file(f"s{seed % 7}/lib{seed}x{n}.so", noise(15_000, seed * 1000 + n)) for n in range(3)]
    # Many of those ahead have been killed, and each would be waited for.
    publishing._PATIENCE = 0.05
    published = publishing.Publication(call_on(open_store(store)), recorded(artifacts, files), Session()).run()
    return next(iter(published.bundles), "")


def warm(store: Address, *, folder: str) -> str:
    """Load what is published, and restore its files into a folder."""
    roots = {"inductor": (Path(folder),)}
    answers: dict[str, Any] = {"current_device": None, "toolchain": {}, "file_roots": roots, "adopt": None}
    for name, answer in answers.items():
        setattr(_compiler, name, lambda *_, answer=answer: answer)
    _compiler.load_if_met = lambda *_: (_compiler.Loaded(), {})
    opened = open_store(store)
    result = warm_up(opened, environment(), Path(folder).with_name("starts") / str(os.getpid()))
    assert not result.warnings, result.warnings
    return str(result.status)


def copy(store: Address, *, target: Address) -> str:
    """Copy all that is published."""
    source = open_store(store)
    selected = [Selected(holding=one, bundles=tuple(one.visible)) for one in Inventory.of(source).holdings]
    done = Transfer(source, open_store(target), lambda _: None).run(selected)
    assert not done.failed, done.failed
    return "copied"


VERBS: dict[str, Callable[..., str]] = {"publish": publish, "warm": warm, "copy": copy}


def main() -> None:
    """Run rounds until there are no more."""
    chunk.CHUNK_SIZE = CHUNK_SIZE
    for line in sys.stdin:
        sys.stdout.write(f"{json.dumps(_round(json.loads(line)))}\n")
        sys.stdout.flush()


def _round(jobs: Sequence[Job]) -> list[Job]:
    """Start all, kill each in its time, and wait for them."""
    reader, writer = os.pipe()
    started = time.monotonic()
    workers = {_fork(job, number, writer): job for number, job in enumerate(jobs)}
    os.close(writer)
    ends = {process: started + job.get("seconds", _LONGEST) for process, job in workers.items()}
    statuses: dict[int, int] = {}
    while len(statuses) < len(workers):
        for process in workers.keys() - statuses.keys():
            if time.monotonic() >= ends[process]:
                os.kill(process, signal.SIGKILL)
                ends[process] = float("inf")
            ended, status = os.waitpid(process, os.WNOHANG)
            if ended:
                statuses[process] = os.waitstatus_to_exitcode(status)
        time.sleep(0.0005)
    with os.fdopen(reader) as pipe:
        told = {int(number): text for number, text in (line.rstrip("\n").split(" ", 1) for line in pipe)}
    took = time.monotonic() - started
    return [
        {"status": statuses[process], "told": told.get(number), "seconds": took}
        for number, process in enumerate(workers)
    ]


def _fork(job: Job, number: int, writer: int) -> int:
    process = os.fork()
    if process:
        return process
    try:
        if "step" in job:
            _die_at(job["step"])
        told = VERBS[job["verb"]](job["store"], **job["options"])
        os.write(writer, f"{number} {told}\n".encode())
        os._exit(0)
    except BaseException:  # noqa: BLE001 - told on stderr, which the test shows
        traceback.print_exc()
        os._exit(1)


def _die_at(step: int) -> None:
    """Kill this process when it is about to touch the disk for the nth time."""
    steps, lock = itertools.count(1), threading.Lock()

    def watch(event: str, _: tuple[Any, ...]) -> None:
        if event in STEPS:
            with lock:
                if next(steps) == step:
                    os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


if __name__ == "__main__":
    main()
