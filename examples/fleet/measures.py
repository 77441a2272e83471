"""What a scenario comes to in numbers, and which bars it holds."""

import statistics
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from examples.fleet.fleet import Outcome, compilations
from examples.fleet.scenarios import Place
from examples.fleet.traffic import charged, fetched_in_vain, over_unique_by_node

MOST_STORED, MOST_COMPACTED, MOST_OUT = 1.5, 1.05, 1.05
"""Times the unique bytes: in the store before and after compaction, and out of it for each node."""
MOST_REQUESTS = 4
"""Of a warm worker, beside one for each chunk."""
_PUBLISHED = frozenset({"published", "duplicate", "unchanged", "covered"})
"""What is said of a publication after which there is nothing new."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """A bar, and what was measured."""

    name: str
    told: str
    held: bool


def measured(outcome: Outcome, unique: Mapping[str, int]) -> dict[str, Any]:
    """Put the numbers of a scenario together; `unique` is what one worker alone leaves, in bytes, by version."""
    alive = [one for one in outcome.accounts if one.told]
    ready = sorted(one.told["seconds_ready"] for one in alive)
    writes, reads = charged(outcome.requests)
    workers = len(outcome.accounts)
    compiled = compilations(outcome)
    whole = sum(unique[place.version] for place in outcome.scenario.places)
    out = sum(one.bytes_out for one in outcome.requests)
    return {
        "workers": workers,
        "killed": len(outcome.killed),
        "writes": writes,
        "reads": reads,
        "deletes": sum(one.method == "DELETE" for one in outcome.requests),
        "throttled": sum(one.is_throttled for one in outcome.requests),
        "requests_a_worker": len(outcome.requests) / workers,
        "bytes_out": out,
        "bytes_in": sum(one.bytes_in for one in outcome.requests),
        "bytes_out_a_worker": out / workers,
        "unique": whole,
        "stored": outcome.stored,
        "stored_over_unique": outcome.stored / whole,
        "compacted_over_unique": outcome.compacted / whole,
        "compacted": outcome.compacted,
        "graphs": len(compiled),
        "compilations": compiled.total(),
        "most_compilations_of_a_graph": max(compiled.values(), default=0),
        "worst_node_over_unique": max(over_unique_by_node(outcome.requests, outcome.killed).values(), default=0.0),
        "chunks_lost_with_a_worker": len(fetched_in_vain(outcome.requests, outcome.killed)),
        "requests_of_a_warm_worker": max((count for count, _ in _warm_requests(outcome)), default=0),
        "seconds_ready_median": statistics.median(ready),
        "seconds_ready_p99": ready[min(int(len(ready) * 0.99), len(ready) - 1)],
        "starts": _counts(one.told["warm"] for one in alive),
        "publications": _counts(one.told["publish"] for one in alive),
        "lost": list(_lost(outcome)),
    }


def bars(outcome: Outcome, found: Mapping[str, Any]) -> Iterator[Bar]:
    """Judge a scenario."""
    scenario = outcome.scenario
    lost = found["lost"]
    yield Bar(name="nothing lost", told="; ".join(lost[:3]) or "nothing", held=not lost)
    # Workers that finish different parts at one moment each store theirs, whatever they have in common.
    if not scenario.parts:
        yield _at_most("stored over unique", found["stored_over_unique"], MOST_STORED)
    yield _at_most("stored over unique after compaction", found["compacted_over_unique"], MOST_COMPACTED)
    yield _at_most("bytes out of the store for a node over unique", found["worst_node_over_unique"], MOST_OUT)
    if scenario.wait:
        least = sum(one.number in outcome.killed and bool(one.compiling) for one in outcome.accounts)
        yield _at_most("compilations of a graph", found["most_compilations_of_a_graph"], 1 + bool(least))
    if not scenario.throttled:
        over = [count - allowed for count, allowed in _warm_requests(outcome)]
        told = f"{found['requests_of_a_warm_worker']} requests at most, of {len(over)} warm workers"
        yield Bar(name="requests of a warm worker", told=told, held=bool(over) and max(over) <= 0)
    wasted = _wasted(outcome)
    yield Bar(name="a publication with nothing new", told=f"{wasted} requests", held=not wasted)


def _at_most(name: str, value: float, most: float) -> Bar:
    return Bar(name=name, told=f"{value:.3g}, at most {most:g}", held=value <= most)


def _counts(words: Iterator[str]) -> dict[str, int]:
    found: dict[str, int] = {}
    for word in words:
        found[word] = found.get(word, 0) + 1
    return dict(sorted(found.items()))


def _warm_requests(outcome: Outcome) -> Iterator[tuple[int, int]]:
    """Count the requests of each warm worker that did not wait for another, beside how many it may make."""
    made = Counter(one.worker for one in outcome.requests)
    chunks: dict[Place, set[str]] = {place: set() for place in outcome.scenario.places}
    for one in outcome.requests:
        if one.is_chunk_read:
            chunks[outcome.places[one.worker]].add(one.key)
    for account in outcome.accounts:
        if account.told and account.told["warm"] == "loaded" and not account.told["waited"] and not account.compiling:
            yield made[account.number], MOST_REQUESTS + len(chunks[outcome.places[account.number]])


def _wasted(outcome: Outcome) -> int:
    """Count the requests of publications for which nothing was compiled since the last one that went well."""
    idle = {one.number for one in outcome.accounts if not one.compiling}
    done = {one.number for one in outcome.accounts if one.told and one.told["publish"] in _PUBLISHED}
    without_news = {"publish": idle, "again": done}
    return sum(one.worker in without_news.get(one.step, ()) for one in outcome.requests)


def _lost(outcome: Outcome) -> Iterator[str]:
    """Say what a later worker does not find, who did not end well, and what is damaged."""
    yield from outcome.unsound
    for place, told in outcome.checks.items():
        if told.get("compiled") != [] or told.get("warm") != "loaded":
            yield f"{place.version} on {place.kind}: {len(told.get('compiled', ()))} graphs compiled anew"
    for one in outcome.accounts:
        if one.number not in outcome.killed and (one.status or not one.told):
            yield f"worker {one.number} ended with {one.status}"
    if not outcome.scenario.throttled:
        for one in outcome.accounts:
            if one.told and one.told["publish"] not in _PUBLISHED:
                yield f"worker {one.number} did not publish: {one.told['publish_reason']}"
