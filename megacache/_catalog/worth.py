"""What warm starts were worth, over all processes that have left a receipt in a store."""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from megacache._bundle import EnvironmentPrefix
from megacache._catalog.receipts import RECEIPT_LIFE, Left, StartReceipt, list_receipts, read_receipts
from megacache._store import Store

MOST_RECEIPTS = 10_000
"""Receipts that are read for one report; each is a request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Worth:
    """What the starts of one environment were worth."""

    prefix: EnvironmentPrefix
    torch_version: str
    """Empty if the receipts disagree."""
    receipts: tuple[StartReceipt, ...]
    """One for each process."""

    @property
    def starts(self) -> Counter[str]:
        """Count the processes by how their warm start ended."""
        return Counter(one.status for one in self.receipts)

    @property
    def hit(self) -> int:
        """Count the lookups that hit."""
        return sum(one.hit for one in self.receipts)

    @property
    def total(self) -> int:
        """Count all lookups."""
        return self.hit + sum(one.missed + one.bypassed for one in self.receipts)

    @property
    def rate(self) -> float | None:
        """Share of the lookups that hit; None if there was none."""
        return self.hit / self.total if self.total else None

    @property
    def seconds_saved(self) -> float:
        """Add up the seconds of compilation that were saved."""
        return sum(one.seconds_saved for one in self.receipts)

    @property
    def seconds_warming(self) -> float:
        """Add up the seconds that warming took."""
        return sum(one.seconds_warming for one in self.receipts)

    @property
    def bytes_stored(self) -> int:
        """Add up the bytes that were fetched."""
        return sum(one.bytes_stored for one in self.receipts)


@dataclass(frozen=True, slots=True, kw_only=True)
class Worths:
    """What the starts of a whole cache were worth."""

    environments: tuple[Worth, ...] = ()
    """By prefix."""
    left_out: int = 0
    """Processes whose receipts were not read, because there are too many; those are the oldest."""

    @property
    def reasons(self) -> Sequence[tuple[str, int, int]]:
        """Give the reasons of misses, the commonest first: each with its processes and its lookups."""
        processes: Counter[str] = Counter()
        lookups: Counter[str] = Counter()
        for receipt in (receipt for one in self.environments for receipt in one.receipts):
            processes.update(receipt.reasons.keys())
            lookups.update(receipt.reasons)
        return [(reason, count, lookups[reason]) for reason, count in processes.most_common()]


def read_worths(receipts: Store, now: float, most: int = MOST_RECEIPTS) -> Worths:
    """Read the last receipt of each process, of the newest ones, as far as their life is not over.

    It costs one LIST for each 1,000 receipts, and one GET for each that is read.
    """
    alive = [one for one in list_receipts(receipts) if now - (one.entry.modified or now) < RECEIPT_LIFE]
    last: dict[tuple[str, str], Left] = {}
    for one in sorted(alive, key=lambda one: one.number):
        last[one.prefix.path, one.process] = one
    newest = sorted(last.values(), key=lambda one: (-(one.entry.modified or now), one.process))
    read = read_receipts(receipts, tuple(newest[:most]))
    return Worths(environments=tuple(_by_environment(read)), left_out=max(len(newest) - most, 0))


def _by_environment(read: Iterable[tuple[Left, StartReceipt]]) -> Iterable[Worth]:
    found: dict[EnvironmentPrefix, list[StartReceipt]] = defaultdict(list)
    for one, told in read:
        found[one.prefix].append(told)
    for prefix in sorted(found, key=lambda one: one.path):
        versions = {one.torch_version for one in found[prefix]}
        version = versions.pop() if len(versions) == 1 else ""
        yield Worth(prefix=prefix, torch_version=version, receipts=tuple(found[prefix]))
