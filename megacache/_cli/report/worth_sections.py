"""What a page tells of the starts whose processes have left receipts."""

from collections.abc import Iterator, Sequence

from megacache._catalog import Worth, Worths
from megacache._cli.output import size_text, span_text
from megacache._cli.report.charts import bars
from megacache._cli.report.sections import Section
from megacache._runtime import counted, shown

_BARS = 12
"""In one chart."""
_ROWS = 50
"""Reasons in a table."""


def worth_totals(worths: Worths) -> Sequence[tuple[str, str]]:
    """Give the figures for the top of the page; none without receipts."""
    if not worths.environments:
        return ()
    hit, total = (sum(counts) for counts in zip(*((one.hit, one.total) for one in worths.environments), strict=True))
    return (
        ("Starts with a receipt", str(sum(len(one.receipts) for one in worths.environments))),
        ("Hit rate", f"{hit / total:.0%}" if total else "-"),
        ("Compilation saved", span_text(sum(one.seconds_saved for one in worths.environments))),
    )


def worth_sections(worths: Worths) -> Iterator[Section]:
    """Tell what starts were worth, and why they missed."""
    if any(one.total for one in worths.environments):
        yield _rates([one for one in worths.environments if one.total])
    if worths.reasons:
        yield _reasons(worths.reasons)


def _rates(environments: Sequence[Worth]) -> Section:
    worst_first = sorted(environments, key=lambda one: one.rate or 0.0)
    return Section(
        title="Hit rates",
        told="Lookups in PyTorch's caches that hit, the lowest first, as the processes of the last 30 days tell.",
        chart=bars([(f"{_name(one)}", one.rate or 0.0, f"{one.rate:.1%}") for one in worst_first[:_BARS]]),
        headers=["Environment", "torch", "Starts", "Loaded", "Hit rate", "Saved", "Warming", "Fetched"],
        rows=[
            [
                one.prefix.path,
                shown(one.torch_version) or "unknown",
                str(len(one.receipts)),
                str(one.starts["loaded"]),
                f"{one.rate:.1%}",
                span_text(one.seconds_saved),
                span_text(one.seconds_warming),
                size_text(one.bytes_stored),
            ]
            for one in worst_first
        ],
    )


def _reasons(reasons: Sequence[tuple[str, int, int]]) -> Section:
    left = len(reasons) - _ROWS
    return Section(
        title="Reasons of misses",
        told="Processes that compiled for a reason, the commonest first"
        + (f"; {counted(left, 'rarer reason')} left out." if left > 0 else "."),
        chart=bars([(shown(reason), processes, str(processes)) for reason, processes, _ in reasons[:_BARS]]),
        headers=["Reason", "Processes", "Lookups"],
        rows=[[shown(reason), str(processes), str(lookups)] for reason, processes, lookups in reasons[:_ROWS]],
    )


def _name(one: Worth) -> str:
    return f"{one.prefix.device} {shown(one.torch_version).partition('+')[0]}"
