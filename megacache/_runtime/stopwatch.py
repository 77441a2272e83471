"""Seconds spent, by stage."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Adds up the time spent in named stages."""

    def __init__(self) -> None:
        self._started = time.perf_counter()
        self._stages: dict[str, float] = {}
        self._stopped: float | None = None

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Count the time until the block ends."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self._stages[name] = self._stages.get(name, 0.0) + time.perf_counter() - started

    def stop(self) -> None:
        """Let the time from now on not count for the total; stages that go on in the background count as ever."""
        self._stopped = time.perf_counter()

    def go_on(self) -> None:
        """Let the time count again."""
        if self._stopped is not None:
            self._started += time.perf_counter() - self._stopped
            self._stopped = None

    def seconds(self) -> dict[str, float]:
        """Give the stages in the order in which they began, then the `total` since the start."""
        return {**self._stages, "total": time.perf_counter() - self._started}
