"""Receipts of many processes in one folder, and the hit rate over all of them."""

import contextlib
import json
import os
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from megacache._api import receipt
from megacache._cache import Receipt
from megacache._compiler import Lookups
from megacache._runtime import write_whole

_TOKEN = uuid.uuid4().hex
_CACHES = ("inductor", "aot_autograd")


@dataclass(frozen=True, slots=True, kw_only=True)
class HitRate:
    """How many lookups of some processes hit."""

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


def write(folder: str | None, inherited: Receipt) -> None:
    """Write the receipt of this process, in place of an earlier one; write nothing without a folder, or if that fails.

    It leaves out the lookups that a forked process inherited: they are in its parent's receipt.
    """
    if folder is None:
        return
    with contextlib.suppress(OSError):
        # A forked child has its parent's token; another container may have the same process id.
        own = json.dumps(_own(receipt(), inherited).to_json()).encode()
        write_whole(Path(folder) / f"{os.getpid()}-{_TOKEN}.json", own)


def _own(found: Receipt, inherited: Receipt) -> Receipt:
    return replace(
        found,
        inductor=_since(inherited.inductor, found.inductor),
        aot_autograd=_since(inherited.aot_autograd, found.aot_autograd),
    )


def _since(before: Lookups | None, now: Lookups | None) -> Lookups | None:
    if before is None or now is None:
        return now
    if now.hit < before.hit or now.missed < before.missed or now.bypassed < before.bypassed:
        return now  # the program has cleared PyTorch's counters
    return Lookups(
        hit=now.hit - before.hit,
        missed=now.missed - before.missed,
        guard_missed=None if now.guard_missed is None else now.guard_missed - (before.guard_missed or 0),
        rank_missed=now.rank_missed - before.rank_missed,
        bypassed=now.bypassed - before.bypassed,
        reasons=dict(Counter(now.reasons) - Counter(before.reasons)),
    )


def hit_rate(folder: str) -> HitRate:
    """Add up the receipts in a folder."""
    receipts = [json.loads(path.read_text()) for path in sorted(Path(folder).glob("*.json"))]
    lookups: list[dict[str, Any]] = [one[cache] for one in receipts for cache in _CACHES if one[cache]]
    hit = sum(one["hit"] for one in lookups)
    total = hit + sum(one["missed"] + one["bypassed"] for one in lookups)
    return HitRate(processes=len(receipts), hit=hit, total=total)
