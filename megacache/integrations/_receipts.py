"""What the warm starts of many processes were worth, told to the process that started them."""

import contextlib
import json
import os
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megacache._api import receipt
from megacache._temporary import write_whole

_TOKEN = uuid.uuid4().hex
_CACHES = ("inductor", "aot_autograd")


@dataclass(frozen=True, slots=True, kw_only=True)
class HitRate:
    """What became of all graphs that some processes asked PyTorch's caches for."""

    processes: int
    """Processes that compiled."""
    hit: int
    """Lookups that hit, in the caches of Inductor and of AOTAutograd."""
    total: int
    """Lookups in all, those that PyTorch bypassed among them."""

    @property
    def rate(self) -> float | None:
        """Share of the lookups that hit; None if there was none."""
        return self.hit / self.total if self.total else None


def leave(folder: str | None) -> None:
    """Put the receipt of this process into a folder, in place of an earlier one; what fails there is dropped."""
    if folder is None:
        return
    with contextlib.suppress(OSError):
        write_whole(Path(folder) / f"{os.getpid()}-{_TOKEN}.json", json.dumps(receipt().to_json()).encode())


def collect(folder: str) -> HitRate:
    """Add up the receipts in a folder."""
    receipts = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    lookups: list[dict[str, Any]] = [taken[cache] for taken in receipts for cache in _CACHES if taken[cache]]
    hit = sum(one["hit"] for one in lookups)
    total = hit + sum(one["missed"] + one["bypassed"] for one in lookups)
    return HitRate(processes=len(receipts), hit=hit, total=total)
