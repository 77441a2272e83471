"""The figures of a cache as metrics.

They are gauges without a timestamp, which Prometheus' text-file collector takes as well: it reads the older text
format, and there the last line is a comment. Dates are given instead of ages, for ages would stand still until the
next report.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from megacache._catalog import EnvironmentFigures
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


def openmetrics(url: str, environments: Sequence[EnvironmentFigures]) -> str:
    """Write the figures as OpenMetrics."""
    return "\n".join([*_lines(url, environments), "# EOF"])


def _lines(url: str, environments: Sequence[EnvironmentFigures]) -> Iterator[str]:
    for name, told, samples in _FAMILIES:
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
                yield f"{name}{{{_written({**place, **labels})}}} {value:.0f}"


def _written(labels: Mapping[str, str]) -> str:
    return ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())


def _escaped(value: str) -> str:
    # No line break is left, which the formats escape as well.
    return printable(value).replace("\\", "\\\\").replace('"', '\\"')
