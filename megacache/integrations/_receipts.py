"""The receipt of this process, those of many processes in one folder, and the hit rate over all of them."""

import contextlib
import functools
import json
import os
import uuid
from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from megacache._api import receipt
from megacache._cache import Receipt, WarmResult
from megacache._compiler import Lookups
from megacache._runtime import Deadline, call, write_whole
from megacache.errors import MegacacheError
from megacache.integrations._store_receipts import StoreReceipts

_TOKEN = uuid.uuid4().hex
_CACHES = ("inductor", "aot_autograd")
_STORE = "store"
"""Stands for the store in `MEGACACHE_RECEIPTS`; a folder of that name is `./store`."""
_SECONDS = 2.0
"""What a folder has to take a receipt: no process waits for a disk that hangs."""


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


class Receipts:
    """Puts the receipt of this process where it is asked for: into folders, and into the store."""

    def __init__(self, places: str | None) -> None:
        """Read `MEGACACHE_RECEIPTS`."""
        named = tuple(filter(None, (places or "").split(os.pathsep)))
        self._folders = tuple(Path(one) for one in named if one != _STORE)
        self._store = StoreReceipts() if _STORE in named else None

    def write(self, inherited: Receipt, warmed: WarmResult | None, *, at_end: float | None = None) -> None:
        """Write it, in place of an earlier one in a folder; what fails is left undone.

        At the end of the process `at_end` tells how many seconds that may be delayed. The receipt leaves out the
        lookups that a forked process inherited: they are in its parent's.
        """
        if not self._folders and self._store is None:
            return
        own = _own(receipt(), inherited)
        # A forked child has its parent's token; another container may have the same process id.
        name, data = f"{os.getpid()}-{_TOKEN}.json", json.dumps(own.to_json()).encode()
        for folder in self._folders:
            path, deadline = folder / name, Deadline.after(_SECONDS)
            with contextlib.suppress(OSError, MegacacheError):
                call(functools.partial(write_whole, path, data), deadline=deadline, doing="leaving a receipt")
        if self._store is not None:
            self._store.leave(_without_costs(own, inherited), warmed, at_end=at_end)


def _without_costs(found: Receipt, inherited: Receipt) -> Receipt:
    # They are added up over all processes.
    return replace(
        found,
        seconds_warming=found.seconds_warming - inherited.seconds_warming,
        seconds_saved=(found.seconds_saved or 0.0) - (inherited.seconds_saved or 0.0),
        bytes_stored=found.bytes_stored - inherited.bytes_stored,
    )


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
