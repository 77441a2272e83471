"""Faults of a store, as they look on the wire and on a disk, and what each must come to."""

import errno
from collections.abc import Mapping
from dataclasses import dataclass, field

from tests.kit import faulty_disk
from tests.kit.servers import proxy

PATIENT, HURRIED = 30.0, 0.8
"""Seconds: longer than any fault that is answered takes, and shorter than any that is not."""

ONCE: Mapping[str, int] = {"s3": 1, "gs": 1, "disk": 1}
AGAIN: Mapping[str, int] = {"s3": 3, "gs": 6, "disk": 1}
"""What the clients try again by themselves: botocore asks three times in all, gcsfs six times."""
TWICE: Mapping[str, int] = {"s3": 2}
"""With a condition, and without."""
AGAIN_TWICE: Mapping[str, int] = {"s3": 6, "gs": 12, "disk": 1}
"""aiohttp, below both, repeats a GET at once if its connection is dropped before an answer."""


READING = frozenset({"list", "manifest", "chunk"})
WRITING = frozenset({"upload", "announce"})
READ_ONLY = {"upload": "read_only", "announce": "read_only"}
LATE = "not done within 0.8 s while"


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One way in which a store fails."""

    wire: proxy.Action | None = None
    """How a proxy does it; None if a network cannot."""
    disk: faulty_disk.Action | None = None
    """How a disk does it; None if one cannot, or is made to do it elsewhere."""
    gcs: bool = True
    """False if only S3 answers so on the wire."""
    steps: frozenset[str] = READING | WRITING
    """Which requests it meets, one kind of them at a time."""
    times: int | None = None
    """How many of them it meets; None for all."""
    seconds: float = PATIENT
    """The deadline."""
    cause: str = ""
    """What the reason must say; empty if the fault must be overcome."""
    tries: Mapping[str, int] = field(default_factory=lambda: ONCE)
    """Requests that it may cost for one object, by store."""
    warm: Mapping[str, str] = field(default_factory=dict)
    """Status of a warm start, by step, where that is not `unavailable`."""
    publish: Mapping[str, str] = field(default_factory=dict)
    """Status of a publication, by step, where that is not `unavailable` or, if overcome, `published`."""
    copied: bool = False
    """True if copies are put to this fault as well."""


FAULTS: Mapping[str, Fault] = {
    "latency": Fault(wire=proxy.delay(0.05), disk=faulty_disk.delay(0.05)),
    "hang": Fault(wire=proxy.hang, disk=faulty_disk.hang, seconds=HURRIED, cause=LATE, copied=True),
    "slow drip": Fault(
        wire=proxy.drip(0.5),
        disk=faulty_disk.drip(0.5),
        steps=frozenset({"list", "chunk"}),
        seconds=HURRIED,
        cause=LATE,
    ),
    "drip": Fault(wire=proxy.drip(0.005), disk=faulty_disk.drip(0.005), steps=READING),
    "reset": Fault(
        wire=proxy.reset,
        cause="ConnectionClosed|ServerDisconnected|ClientOSError",
        tries=AGAIN_TWICE,
        copied=True,
    ),
    "reset once": Fault(wire=proxy.reset, times=1, tries=AGAIN_TWICE, copied=True),
    "answer lost once": Fault(
        wire=proxy.lose_answer, steps=WRITING, times=1, tries=AGAIN, publish={"announce": "duplicate"}, copied=True
    ),
    "refused": Fault(
        wire=proxy.status(403),
        disk=faulty_disk.fail(errno.EACCES),
        cause="(HTTP 403 AccessDenied|Forbidden|Permission denied).*; check the credentials",
        publish=READ_ONLY,
        copied=True,
    ),
    "gone": Fault(
        wire=proxy.status(404), cause="FileNotFoundError", warm={"manifest": "miss", "chunk": "miss"}, copied=True
    ),
    "gone from disk": Fault(
        disk=faulty_disk.fail(errno.ENOENT),
        steps=frozenset({"manifest", "chunk"}),
        cause="No such file",
        warm={"manifest": "miss", "chunk": "miss"},
        copied=True,
    ),
    "too many requests": Fault(
        wire=proxy.status(429), steps=frozenset({"chunk", "upload"}), cause="TooManyRequests|429", tries=AGAIN
    ),
    "too many requests once": Fault(wire=proxy.status(429), times=1, tries=AGAIN),
    "down": Fault(
        wire=proxy.status(503),
        disk=faulty_disk.fail(errno.EIO),
        cause="HTTP 503|SlowDown|Input/output",
        tries=AGAIN,
        copied=True,
    ),
    "down once": Fault(wire=proxy.status(503), times=1, tries=AGAIN, copied=True),
    "broken once": Fault(wire=proxy.status(500), steps=frozenset({"chunk", "announce"}), times=1, tries=AGAIN),
    "condition refused": Fault(wire=proxy.status(501), gcs=False, steps=WRITING, times=1, tries=TWICE),
    "writing refused": Fault(
        wire=proxy.status(501),
        gcs=False,
        steps=WRITING,
        cause="HTTP 501 NotImplemented.*; this kind of store cannot do that",
        tries=TWICE,
        publish=READ_ONLY,
    ),
    "full": Fault(wire=proxy.status(507), steps=WRITING, cause="InsufficientCapacity|507"),
    "truncated": Fault(
        wire=proxy.truncate,
        disk=faulty_disk.truncate,
        steps=frozenset({"manifest", "chunk"}),
        cause="payload|Payload|ConnectionClosed|not msgpack|is damaged",
        tries=AGAIN,
        copied=True,
    ),
    "truncated once": Fault(wire=proxy.truncate, steps=READING, times=1, tries=AGAIN, copied=True),
    "flipped": Fault(
        wire=proxy.flip,
        disk=faulty_disk.flip,
        steps=frozenset({"manifest", "chunk"}),
        cause="is damaged|manifest|envelope",
        copied=True,
    ),
    "login page": Fault(
        wire=proxy.substitute(b"<html>log in</html>"),
        steps=frozenset({"manifest", "chunk"}),
        cause="is damaged|not msgpack",
    ),
    "clock of the store is late": Fault(wire=proxy.skew(-90 * 86_400), steps=frozenset({"list", "announce"})),
    "clock of the store is early": Fault(wire=proxy.skew(90 * 86_400), steps=frozenset({"list", "announce"})),
    "clock here is wrong": Fault(
        wire=proxy.status(403, "RequestTimeTooSkewed"),
        gcs=False,
        cause="set the clock of this machine",
        publish=READ_ONLY,
    ),
}
