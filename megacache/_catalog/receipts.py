"""Receipts that processes leave in a store: what their warm starts were worth, and why they missed.

<url>.receipts/<device slug>/<fingerprint>/<process>.<number>.json     of a process, the greatest number counts

They lie beside a cache and not in it, so that no start lists them, however many there are. Whoever may write there
chooses what they say: a receipt that cannot be read counts for nothing.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from megacache._bundle import EnvironmentPrefix
from megacache._runtime import Progress, ProgressCallback, unordered
from megacache._store import Entry, Store

RECEIPT_LIFE = 30 * 86_400.0
"""Seconds after which a receipt says nothing of how things are now."""
_FORMAT = 1
_ENDING = ".receipts"
_KEY = re.compile(r"(?P<environment>[a-z0-9-]+/[0-9a-f]{16})/(?P<process>[0-9a-f]{32})\.(?P<number>\d{1,4})\.json")
_LARGEST = 16_384
"""Bytes of a receipt that are read, at most."""
_MOST_REASONS, _LONGEST_REASON = 8, 200
_GREATEST = 1e15
"""No count of bytes or seconds is greater."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StartReceipt:
    """What a process tells of its start; nothing in it names a host, a user, a path or a URL."""

    status: str
    """How its warm start ended, as in `WarmStatus`."""
    torch_version: str
    hit: int
    """Lookups that hit, in the caches of Inductor and of AOTAutograd."""
    missed: int
    bypassed: int
    """Lookups of what PyTorch cannot cache."""
    seconds_warming: float
    seconds_saved: float
    """By PyTorch's account; 0 if it gives none."""
    bytes_stored: int
    """Bytes that it fetched from the store."""
    reasons: Mapping[str, int] = field(default_factory=dict)
    """Why lookups did not hit, with their number."""

    def pack(self) -> bytes:
        """Write it as JSON."""
        most = sorted(self.reasons.items(), key=lambda pair: -pair[1])[:_MOST_REASONS]
        reasons = {reason[:_LONGEST_REASON]: count for reason, count in most}
        return json.dumps({"format": _FORMAT, **asdict(self), "reasons": reasons}).encode()

    @classmethod
    def parse(cls, data: bytes) -> Self | None:
        """Read one; None if it is not a receipt."""
        try:
            found: dict[str, Any] = json.loads(data)
            if found["format"] != _FORMAT:
                return None
            counts = {name: int(_number(found[name])) for name in ("hit", "missed", "bypassed", "bytes_stored")}
            spans = {name: float(_number(found[name])) for name in ("seconds_warming", "seconds_saved")}
            texts = {name: str(found[name])[:_LONGEST_REASON] for name in ("status", "torch_version")}
            reasons = {
                str(reason)[:_LONGEST_REASON]: int(_number(count))
                for reason, count in list(dict(found["reasons"]).items())[:_MOST_REASONS]
            }
            return cls(**counts, **spans, **texts, reasons=reasons)  # type: ignore[arg-type]
        except (KeyError, TypeError, ValueError, RecursionError):
            return None


def _number(value: Any) -> float:
    # NaN is in no range.
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _GREATEST:
        raise ValueError(value)
    return value


@dataclass(frozen=True, slots=True, kw_only=True)
class Left:
    """A receipt in a listing."""

    prefix: EnvironmentPrefix
    process: str
    number: int
    entry: Entry


def receipts_beside(store: Store) -> Store:
    """Give the place of the receipts of a cache; raise `SettingsError` for a cache that is a whole bucket."""
    return store.beside(_ENDING)


def leave_receipt(receipts: Store, prefix: EnvironmentPrefix, process: str, number: int, told: StartReceipt) -> None:
    """Write a receipt, in one request."""
    receipts.create(f"{prefix.path}/{process}.{number}.json", told.pack())


def list_receipts(receipts: Store) -> tuple[Left, ...]:
    """List what processes have left; names of another form mean nothing."""
    found = ((entry, _KEY.fullmatch(entry.key)) for entry in receipts.list())
    return tuple(
        Left(
            prefix=EnvironmentPrefix(match["environment"]),
            process=match["process"],
            number=int(match["number"]),
            entry=entry,
        )
        for entry, match in found
        if match
    )


def read_receipts(receipts: Store, chosen: "tuple[Left, ...]") -> tuple[tuple[Left, StartReceipt], ...]:
    """Read receipts, one request each, without those that are gone or cannot be read."""
    arriving = unordered(
        lambda one: receipts.read(one.entry.key, size=min(one.entry.size, _LARGEST)),
        chosen,
        deadline=receipts.deadline,
        doing=f"reading receipts from {receipts.url}",
    )
    read = ((done.item, StartReceipt.parse(done.value)) for done in arriving if done.value is not None)
    return tuple((one, told) for one, told in read if told is not None)


@dataclass(frozen=True, slots=True, kw_only=True)
class ExpiryPlan:
    """Receipts whose life is over."""

    keys: tuple[str, ...]
    untold: int
    """Receipts that stay because the store does not tell how old they are."""

    def apply(self, receipts: Store, progress: ProgressCallback) -> None:
        """Delete them."""
        deleting = unordered(
            receipts.delete, self.keys, deadline=receipts.deadline, doing=f"deleting from {receipts.url}"
        )
        for number, done in enumerate(deleting, 1):
            done.result()
            progress(Progress(stage="remove", done=number, total=len(self.keys)))


def plan_expiry(left: "tuple[Left, ...]", now: float) -> ExpiryPlan:
    """Decide which receipts go."""
    dated = [(one.entry.key, one.entry.modified) for one in left]
    return ExpiryPlan(
        keys=tuple(sorted(key for key, at in dated if at is not None and now - at >= RECEIPT_LIFE)),
        untold=sum(at is None for _, at in dated),
    )
