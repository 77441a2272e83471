"""Markdown tables, and numbers in them."""

from collections.abc import Iterable, Sequence

from examples.benchmark.samples import Series

NOT_MEASURED = "-"


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table whose first column holds words and whose others hold numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def number(series: Series) -> str:
    """Write the median; a dash for what was not measured."""
    return f"{series.median:.2f}" if series.by_round else NOT_MEASURED


def span(series: Series) -> str:
    """Write the least and the most."""
    least, most = series.span
    return f"{least:.2f} to {most:.2f}"


def ratio(series: Series | None) -> str:
    """Write the median, with the least and the most if they differ; a dash for what was not measured."""
    if series is None:
        return NOT_MEASURED
    least, most = (f"{end:.2f}" for end in series.span)
    return number(series) if least == most else f"{number(series)} ({least} to {most})"


def yes_or_no(holds: bool | None) -> str:
    """Write a verdict; a dash for what could not be judged."""
    return NOT_MEASURED if holds is None else "yes" if holds else "**no**"
