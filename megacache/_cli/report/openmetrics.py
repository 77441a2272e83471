"""The figures of a cache as metrics.

They are gauges without a timestamp, which Prometheus' text-file collector takes as well: it reads the older text
format, and there the last line is a comment. Dates are given instead of ages, for ages would stand still until the
next report.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from megacache._catalog import EnvironmentFigures, Worth, Worths
from megacache._runtime import printable

_Samples = Iterable[tuple[Mapping[str, str], float]]
"""Labels, beside those that each sample has, and a value."""

_FAMILIES: Sequence[tuple[str, str, Callable[[EnvironmentFigures], _Samples]]] = (
    (
        "megacache_bundles",
        "Bundles by state: serving are those that readers load.",
        lambda one: [({"state": str(state)}, count) for state, count in one.states.items()],
    ),
    (
        "megacache_stored_bytes",
        "Bytes of all manifests and chunks.",
        lambda one: [({}, one.size)],
    ),
    (
        "megacache_artifacts",
        "Artifacts in serving bundles.",
        lambda one: [({}, one.artifacts)],
    ),
    (
        "megacache_compiled_files",
        "Compiled files in serving bundles.",
        lambda one: [({}, one.files)],
    ),
    (
        "megacache_oldest_publication_timestamp_seconds",
        "When the oldest bundle was published, in seconds since 1970.",
        lambda one: [({}, moment.timestamp()) for moment in one.published[:1]],
    ),
    (
        "megacache_newest_publication_timestamp_seconds",
        "When the newest bundle was published, in seconds since 1970.",
        lambda one: [({}, moment.timestamp()) for moment in one.published[-1:]],
    ),
)


_OF_RECEIPTS: Sequence[tuple[str, str, Callable[[Worth], _Samples]]] = (
    (
        "megacache_receipt_starts",
        "Processes that left a receipt, by how their warm start ended.",
        lambda one: [({"status": status}, count) for status, count in sorted(one.starts.items())],
    ),
    (
        "megacache_receipt_lookups",
        "Lookups of these processes in PyTorch's caches, by result.",
        lambda one: [({"result": "hit"}, one.hit), ({"result": "other"}, one.total - one.hit)],
    ),
    (
        "megacache_receipt_saved_seconds",
        "Seconds of compilation that they saved, by PyTorch's account.",
        lambda one: [({}, one.seconds_saved)],
    ),
    (
        "megacache_receipt_warming_seconds",
        "Seconds that their warm starts took.",
        lambda one: [({}, one.seconds_warming)],
    ),
)
_REASONS = "megacache_receipt_misses"


def openmetrics(url: str, environments: Sequence[EnvironmentFigures], worths: Worths) -> str:
    """Write the figures as OpenMetrics."""
    lines = [*_lines(url, _FAMILIES, environments)]
    if worths.environments:
        lines += [*_lines(url, _OF_RECEIPTS, worths.environments), *_reasons(url, worths)]
    return "\n".join([*lines, "# EOF"])


def _reasons(url: str, worths: Worths) -> Iterator[str]:
    yield f"# TYPE {_REASONS} gauge"
    yield f"# HELP {_REASONS} Processes that missed for a reason."
    for reason, processes, _ in worths.reasons:
        yield f"{_REASONS}{{{_written({'url': url, 'reason': reason})}}} {processes}"


def _lines(
    url: str, families: Sequence[tuple[str, str, Callable[[Any], _Samples]]], environments: Sequence[Any]
) -> Iterator[str]:
    for name, told, samples in families:
        yield f"# TYPE {name} gauge"
        yield f"# HELP {name} {told}"
        for one in environments:
            place = {
                "url": url,
                "device": one.prefix.device,
                "fingerprint": one.prefix.fingerprint,
                "torch_version": one.torch_version,
            }
            for labels, value in samples(one):
                yield f"{name}{{{_written({**place, **labels})}}} {value:.15g}"


def _written(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    # No line break is left, which the formats escape as well.
    return printable(value).replace("\\", "\\\\").replace('"', '\\"')
