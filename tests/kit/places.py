"""Stores that can be made to fail: a filesystem on disk, and servers behind proxies."""

import re
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from megacache._catalog import Inventory, Selected, Transfer, Transferred, verify
from megacache._catalog.verification import Verdict
from megacache._runtime import Deadline
from megacache._store import Store
from tests.kit import faulty_disk
from tests.kit.builders import finish_workers
from tests.kit.faults import FAULTS, PATIENT, Fault
from tests.kit.servers import Server, proxy
from tests.kit.servers.rules import Rules

GRACE = 5.0
"""Seconds after its deadline at which a call has returned on any machine."""
STEPS = {
    "list": r"^LIST |^GET [^ ]*\?.*prefix=",
    "manifest": r"^GET .*\.msgpack",
    "chunk": r"^GET .*\.zst",
    "upload": r"^P(UT|OST) .*\.zst",
    "announce": r"^P(UT|OST) .*\.msgpack",
}
"""The requests of each step."""

Value = TypeVar("Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Place:
    """A store, or a cache in it."""

    kind: str
    url: str
    storage_options: Mapping[str, Any]
    rules: Rules

    def under(self, name: str) -> "Place":
        """Name a cache in it."""
        return replace(self, url=f"{self.url}/{name}")

    def open(self, seconds: float = PATIENT) -> Store:
        """Open it."""
        return Store.open(self.url, storage_options=self.storage_options, deadline=Deadline.after(seconds))

    def fail(self, step: str, fault: Fault) -> None:
        """Make a step fail, and count requests from now on."""
        self.rules.forget()
        self.rules.fail(STEPS[step], fault.disk if self.kind == "disk" else fault.wire, fault.times)

    def heal(self) -> None:
        """End all faults, and wait for whoever was kept waiting by them."""
        self.rules.heal()
        finish_workers()


@contextmanager
def places(s3: Server, gcs: Server, folder: Path) -> Iterator[Mapping[str, Place]]:
    """Put proxies in front of servers, and the filesystem in front of a folder."""
    faulty_disk.register()
    with proxy.in_front_of(s3) as one, proxy.in_front_of(gcs) as other:
        yield {
            "disk": Place(kind="disk", url=f"faulty://{folder}", storage_options={}, rules=faulty_disk.RULES),
            "s3": _behind("s3", one),
            "gs": _behind("gs", other),
        }


def _behind(kind: str, found: proxy.Proxy) -> Place:
    options = {**found.server.storage_options, **(_shared_session() if kind == "s3" else {})}
    return Place(kind=kind, url=found.server.url, storage_options=options, rules=found.rules)


def _shared_session() -> Mapping[str, object]:
    """Make a session of botocore: it keeps what it has read of S3's descriptions, which takes longer than a request."""
    # Where it is not installed, all that needs no S3 can still be tested.
    from aiobotocore.session import AioSession  # type: ignore[import-untyped]

    return {"session": AioSession()}


def verdicts(store: Store) -> list[Verdict]:
    """Verify all that a store holds."""
    return [
        verdict
        for holding in Inventory.of(store).holdings
        for verdict in verify(store, holding, lambda _: None).verdicts
    ]


def copy_all(source: Store, target: Store) -> Transferred:
    """Copy all that is visible, as `megacache cp` does."""
    selected = [Selected(holding=one, bundles=tuple(one.visible)) for one in Inventory.of(source).holdings]
    return Transfer(source, target, lambda _: None).run(selected)


def cases(*steps: str, copied: bool = False) -> list[tuple[str, str, str]]:
    """Give each kind of store, fault and step that go together."""
    return [
        (kind, name, step)
        for name, fault in FAULTS.items()
        for kind, action in (("disk", fault.disk), ("s3", fault.wire), ("gs", fault.gcs and fault.wire))
        for step in steps
        if action and step in fault.steps and (fault.copied or not copied)
    ]


def timed(work: Callable[[], Value], seconds: float) -> Value:
    """Do something that must be done within a deadline."""
    started = time.monotonic()
    value = work()
    assert time.monotonic() - started < seconds + GRACE
    return value


def check_told(fault: Fault, place: Place, reason: str) -> None:
    """Check that a reason names the place, or the bundle in it, and the cause."""
    assert re.search(fault.cause, reason), reason
    assert place.url in reason or re.search(r"\b[0-9a-f]{32}\b.*: ", reason), reason
