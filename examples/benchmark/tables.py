"""Markdown tables, and numbers in them."""

from collections.abc import Iterable, Sequence

from examples.benchmark.samples import Series


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Write a table whose first column holds words and whose others hold numbers."""
    rule = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (header, rule, *rows))


def number(series: Series) -> str:
    """Write the median."""
    return f"{series.median:.2f}"


def span(series: Series) -> str:
    """Write the least and the most."""
    least, most = series.span
    return f"{least:.2f} to {most:.2f}"
