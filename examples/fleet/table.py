"""The numbers of a fleet as tables, with what stores charge for it."""

from collections.abc import Iterator, Mapping
from typing import Any

from examples.fleet.prices import AS_OF, PRICES

FAR = 100_000
"""Workers for which costs are worked out from those of the largest fleet."""
_COLUMNS: Mapping[str, str] = {
    "workers": "{:,}",
    "killed": "{}",
    "requests_a_worker": "{:.1f}",
    "bytes_out_a_worker": "{:,.0f}",
    "requests_of_a_warm_worker": "{}",
    "stored_over_unique": "{:.2f}",
    "compacted_over_unique": "{:.2f}",
    "worst_node_over_unique": "{:.2f}",
    "chunks_lost_with_a_worker": "{}",
    "graphs": "{}",
    "compilations": "{}",
    "seconds_ready_median": "{:.1f}",
    "seconds_ready_p99": "{:.1f}",
}


def markdown(document: Mapping[str, Any]) -> str:
    """Write all of it."""
    return "\n".join([*_scenarios(document), "", *_missed(document), *_costs(document)])


def day(found: Mapping[str, Any], workers: int) -> Mapping[str, float]:
    """Work out what stores charge for a day on which so many workers start as those that were measured."""
    times = workers / found["workers"]
    return {
        price.store: price.day(writes=found["writes"] * times, reads=found["reads"] * times, kept=found["stored"])
        for price in PRICES
    }


def _scenarios(document: Mapping[str, Any]) -> Iterator[str]:
    yield "| scenario | " + " | ".join(name.replace("_", " ") for name in _COLUMNS) + " | lost |"
    yield "|---|" + "---:|" * (len(_COLUMNS) + 1)
    for name, found in document["scenarios"].items():
        cells = [form.format(found[column]) for column, form in _COLUMNS.items()]
        yield f"| {name} | " + " | ".join(cells) + f" | {len(found['lost'])} |"


def _missed(document: Mapping[str, Any]) -> Iterator[str]:
    for name, found in document["scenarios"].items():
        for bar, (told, held) in found["bars"].items():
            if not held:
                yield f"MISSED in {name}: {bar}: {told}"


def _costs(document: Mapping[str, Any]) -> Iterator[str]:
    if not document["sizes"]:
        return
    yield f"\nA day with so many starts, by list prices of {AS_OF}:\n"
    yield "| workers | writes and lists | reads | " + " | ".join(price.store for price in PRICES) + " |"
    yield "|---:|---:|---:|" + "---:|" * len(PRICES)
    largest = document["sizes"][-1]
    for found, workers in [*((one, one["workers"]) for one in document["sizes"]), (largest, FAR)]:
        times = workers / found["workers"]
        costs = " | ".join(f"${cost:.4f}" for cost in day(found, workers).values())
        yield f"| {workers:,} | {found['writes'] * times:,.0f} | {found['reads'] * times:,.0f} | {costs} |"
