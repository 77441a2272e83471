"""What reached the server, by scenario, worker, node and step."""

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_CHARGED_AS_WRITES = frozenset({"PUT", "LIST"})
_THROTTLED = 503


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request as the server saw it."""

    scenario: str
    node: int
    worker: int
    step: str
    method: str
    key: str
    status: int
    bytes_in: int
    bytes_out: int

    @property
    def is_chunk_read(self) -> bool:
        """True if it fetched a chunk."""
        return self.method == "GET" and "/chunks/" in self.key and self.status != _THROTTLED

    @property
    def is_throttled(self) -> bool:
        """True if the server told the worker to slow down."""
        return self.status == _THROTTLED


class Log:
    """The file that the server writes."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._at = 0

    def take(self) -> Sequence[Request]:
        """Give the requests of workers since the last call."""
        with self._path.open("rb") as file:
            file.seek(self._at)
            lines = file.read().splitlines()
            self._at = file.tell()
        return [_request(found) for found in map(json.loads, lines) if "worker" in found]


def _request(found: Mapping[str, Any]) -> Request:
    return Request(
        scenario=found["scenario"],
        node=int(found["node"]),
        worker=int(found["worker"]),
        step=found["step"],
        method=found["method"],
        key=found["key"],
        status=found["status"],
        bytes_in=found["in"],
        bytes_out=found["out"],
    )


def charged(requests: Iterable[Request]) -> tuple[int, int]:
    """Count what stores charge as writes and listings, and what they charge as reads; to delete is free."""
    methods = Counter(one.method for one in requests)
    writes = sum(methods[method] for method in _CHARGED_AS_WRITES)
    return writes, methods["GET"] + methods["HEAD"]


def over_unique_by_node(requests: Iterable[Request], killed: Collection[int]) -> Mapping[int, float]:
    """Compare the bytes of chunks that each node has fetched with those of the different ones among them.

    What died with a killed worker, so that another had to fetch it, is left out: `fetched_in_vain` counts it.
    """
    reads = [one for one in requests if one.is_chunk_read]
    vain = set(fetched_in_vain(reads, killed))
    fetched: Counter[int] = Counter()
    once: dict[int, dict[str, int]] = defaultdict(dict)
    for one in reads:
        if one not in vain:
            fetched[one.node] += one.bytes_out
            once[one.node][one.key] = max(one.bytes_out, once[one.node].get(one.key, 0))
    return {node: size / sum(once[node].values()) for node, size in fetched.items()}


def fetched_in_vain(requests: Iterable[Request], killed: Collection[int]) -> Sequence[Request]:
    """Give the chunks that were sent to a worker which was killed before its node had them."""
    reads = [one for one in requests if one.is_chunk_read]
    kept = {(one.node, one.key) for one in reads if one.worker not in killed}
    return [one for one in reads if one.worker in killed and (one.node, one.key) in kept]
