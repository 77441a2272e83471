"""Peak memory of a piece of work, as Linux counts it."""

import ctypes
import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

_RESET_PEAK = "5"
"""What `/proc/self/clear_refs` takes to set the peak to the present size; see proc_pid_clear_refs(5)."""


@dataclass(slots=True)
class Growth:
    """How far resident memory rose above what it was, in bytes."""

    before: int = 0
    peak: int = 0

    @property
    def grown(self) -> int:
        """Tell how far the peak rose."""
        return self.peak - self.before

    def kept(self) -> int:
        """Tell what is still there now."""
        gc.collect()
        return _status("VmRSS") - self.before

    def values(self) -> dict[str, float]:
        """Give both by name."""
        return {"grown": self.grown, "kept": self.kept()}


@contextmanager
def growth() -> Iterator[Growth]:
    """Measure the peak of resident memory within the block, above the size just before it."""
    gc.collect()
    # What the preparation has freed must not hide what the block allocates.
    ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text(_RESET_PEAK)
    grown = Growth(before=_status("VmRSS"))
    try:
        yield grown
    finally:
        grown.peak = _status("VmHWM")


def _status(name: str) -> int:
    match = re.search(rf"^{name}:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    if match is None:
        raise OSError(f"/proc/self/status has no {name}")
    return int(match[1]) * 1024
