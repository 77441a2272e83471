"""What a page tells of a cache: sections, each with a chart and with the table that says the same."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence, Sized
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from megacache._catalog import BundleState, EnvironmentFigures
from megacache._cli.output import size_text, span_text
from megacache._cli.report.charts import bars, columns, dots
from megacache._runtime import counted, shown

_BARS = 12
"""In one chart, and versions of torch."""
_DOTS = 40
"""Rows of dots."""
_PERIODS = 26
_PERIOD_DAYS = (1, 7, 28, 91, 364)
_LABELS = 50
"""Rows of labels."""
_UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class Section:
    """A part of a page."""

    title: str
    told: str
    chart: str
    """SVG."""
    headers: Sequence[str]
    rows: Sequence[Sequence[str]]
    """The first cell of each is its name."""


def sections(environments: Sequence[EnvironmentFigures], now: datetime) -> Iterator[Section]:
    """Tell what some environments hold; there is at least one bundle."""
    yield _coverage(environments)
    yield _sizes(environments)
    if any(one.published for one in environments):
        yield _ages(environments, now)
    if any(bundle.labels for one in environments for bundle in one.bundles):
        yield _publishers(environments, now)
    if any(one.published for one in environments):
        yield _times(environments, now)


def _coverage(environments: Sequence[EnvironmentFigures]) -> Section:
    versions = sorted({_torch(one) for one in environments}, key=_in_order)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for one in environments:
        counts[one.prefix.device][_torch(one)] += one.states[BundleState.SERVING]
    devices, newest = sorted(counts)[:_DOTS], versions[-_BARS:]
    return Section(
        title="Coverage",
        told="Bundles that readers load, by GPU type and version of torch.",
        chart=dots(newest, {device: [counts[device][one] for one in newest] for device in devices}),
        headers=["GPU type", *versions],
        rows=[[device, *(str(found[one] or "-") for one in versions)] for device, found in sorted(counts.items())],
    )


def _sizes(environments: Sequence[EnvironmentFigures]) -> Section:
    sizes: Counter[str] = Counter()
    for one in environments:
        sizes[one.prefix.device] += one.size
    return Section(
        title="Sizes",
        told=f"What is stored for each GPU type{_of_most(sizes)}, and below for each environment.",
        chart=bars([(device, size, size_text(size)) for device, size in sizes.most_common(_BARS)]),
        headers=["Environment", "torch", "Serving", "Out of service", "Unusable", "Artifacts", "Files", "Size"],
        rows=[
            [
                one.prefix.path,
                _torch(one),
                str(one.states[BundleState.SERVING]),
                str(one.states[BundleState.QUARANTINED] + one.states[BundleState.SUPERSEDED]),
                str(one.states[BundleState.UNUSABLE]),
                str(one.artifacts),
                str(one.files),
                size_text(one.size),
            ]
            for one in sorted(environments, key=lambda one: -one.size)
        ],
    )


def _ages(environments: Sequence[EnvironmentFigures], now: datetime) -> Section:
    newest: dict[str, datetime] = {}
    dated = [one for one in environments if one.published]
    for one in dated:
        name = f"{one.prefix.device} {_torch(one).partition('+')[0]}"
        newest[name] = max(newest.get(name, one.published[-1]), one.published[-1])
    oldest_first = sorted(newest.items(), key=lambda pair: pair[1])[:_BARS]
    return Section(
        title="Ages",
        told=f"Time since the last publication, the longest first{_of_most(newest)}, and below for each environment.",
        chart=bars([(name, max((now - at).total_seconds(), 0), _age(at, now)) for name, at in oldest_first]),
        headers=["Environment", "torch", "First published", "Last published", "Age"],
        rows=[
            [
                one.prefix.path,
                _torch(one),
                _day(one.published[0]),
                _day(one.published[-1]),
                _age(one.published[-1], now),
            ]
            for one in sorted(dated, key=lambda one: one.published[-1])
        ],
    )


def _publishers(environments: Sequence[EnvironmentFigures], now: datetime) -> Section:
    counts: Counter[tuple[str, str]] = Counter()
    newest: dict[tuple[str, str], datetime] = {}
    for bundle in (bundle for one in environments for bundle in one.bundles):
        for label in bundle.labels.items():
            counts[label] += 1
            if bundle.published is not None:
                newest[label] = max(newest.get(label, bundle.published), bundle.published)
    most = counts.most_common(_LABELS)
    left = len(counts) - len(most)
    return Section(
        title="Publishers",
        told="Bundles by the labels that their publishers gave them"
        + (f"; {counted(left, 'rarer label')} left out." if left else "."),
        chart=bars([(shown(f"{name}={value}"), count, str(count)) for (name, value), count in most[:_BARS]]),
        headers=["Label", "Value", "Bundles", "Last published", "Age"],
        rows=[[shown(label[0]), shown(label[1]), str(count), *_last(newest.get(label), now)] for label, count in most],
    )


def _times(environments: Sequence[EnvironmentFigures], now: datetime) -> Section:
    days, counts = periods([moment.date() for one in environments for moment in one.published], now.date())
    return Section(
        title="Bundles over time",
        told=f"Bundles published in each {'day' if days == 1 else f'{days} days'}, by the first day.",
        chart=columns([(first.isoformat(), count) for first, count in counts]),
        headers=["From", "Bundles"],
        rows=[[first.isoformat(), str(count)] for first, count in reversed(counts) if count],
    )


def periods(days: Sequence[date], today: date) -> tuple[int, Sequence[tuple[date, int]]]:
    """Count days by equal periods, of which the last ends today; what lies before the first counts as of the first."""
    back = [max((today - day).days, 0) for day in days]  # a clock may be ahead
    length = next((one for one in _PERIOD_DAYS if max(back) < one * _PERIODS), _PERIOD_DAYS[-1])
    counts = Counter(min(one // length, _PERIODS - 1) for one in back)
    return length, [
        (today - timedelta(days=(number + 1) * length - 1), counts[number]) for number in range(max(counts), -1, -1)
    ]


def _of_most(found: Sized) -> str:
    return f" ({_BARS} of {len(found)})" if len(found) > _BARS else ""


def _torch(one: EnvironmentFigures) -> str:
    return shown(one.torch_version) or _UNKNOWN


def _in_order(version: str) -> list[tuple[int, str]]:
    """Put 2.9 before 2.13."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.findall(r"\d+|\D+", version)]


def _day(moment: datetime) -> str:
    return moment.date().isoformat()


def _age(moment: datetime, now: datetime) -> str:
    return span_text((now - moment).total_seconds())


def _last(moment: datetime | None, now: datetime) -> tuple[str, str]:
    return (_UNKNOWN, "") if moment is None else (_day(moment), _age(moment, now))
