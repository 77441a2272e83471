"""The one door for printing: data to stdout, words for people to stderr."""

import json
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from typing import Any

import click
from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, DownloadColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from megacache._runtime import Progress as Step
from megacache._runtime import ProgressCallback, moment_of, printable

JSON_FORMAT = 1
"""Version of every document that `--json` prints; fields may be added without a new one."""
# rich would fold a table to the width of the terminal.
_UNBOUNDED = 10_000
_UNITS = ("B", "KB", "MB", "GB", "TB")
_STEP = 1000
_SPANS = ((86_400 * 2, 86_400, "d"), (3_600 * 2, 3_600, "h"), (120, 60, "min"))


def say(template: str, *values: object) -> None:
    """Print a message to stderr, if that is open; values are not read as markup."""
    text = template.format(*(escape(printable(str(value))) for value in values))
    # A stderr that is closed or full must not change how a command ends.
    with suppress(OSError):
        _console(stderr=True).print(text, soft_wrap=True)


def emit(document: Mapping[str, Any], *, command: str) -> None:
    """Print one JSON document."""
    click.echo(json.dumps({"format": JSON_FORMAT, "command": command, **document}, indent=2))


def print_table(headers: Sequence[str], rows: Iterable[Sequence[object]], *, numbers: Iterable[str] = ()) -> None:
    """Print a table; lines are as long as they need to be, so that an id can be copied and a line can be searched."""
    table = Table(box=None, pad_edge=False, header_style="bold")
    for header in headers:
        table.add_column(header, justify="right" if header in set(numbers) else "left", no_wrap=True)
    for row in rows:
        table.add_row(*(escape(printable(str(cell))) for cell in row))
    console = _console(stderr=False, width=_UNBOUNDED)
    with console.capture() as captured:
        console.print(table)
    for line in captured.get().splitlines():
        # rich fills lines with blanks, and has decided about colours: click should not.
        click.echo(line.rstrip(), color=True)


def print_text(text: str) -> None:
    """Print data as it is."""
    click.echo(text)


@contextmanager
def progress_bar(doing: str, *, objects: bool = False) -> Iterator[ProgressCallback]:
    """Show a bar on a terminal while something takes long; it counts bytes, or else objects."""
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn() if objects else DownloadColumn(),
        TimeRemainingColumn(),
        console=_console(stderr=True),
        transient=True,
        disable=sys.stderr is None or not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(doing, total=None)

        def tell(step: Step) -> None:
            bar.update(task, completed=step.done, total=step.total)

        yield tell


def size_text(count: int) -> str:
    """Write a number of bytes in three digits and a unit."""
    if count < _STEP:
        return f"{count} B"
    power = min((len(str(count)) - 1) // 3, len(_UNITS) - 1)
    return f"{count / _STEP**power:.1f} {_UNITS[power]}"


def age_text(created: str) -> str:
    """Write how long ago a moment was, given in ISO 8601."""
    seconds = age_seconds(created)
    return "unknown" if seconds is None else span_text(seconds)


def span_text(seconds: float) -> str:
    """Write a span of time in one unit."""
    for least, span, unit in _SPANS:
        if seconds >= least:
            return f"{seconds // span:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


def age_seconds(created: str) -> float | None:
    """Tell how long ago a moment was; None if the text is not a date."""
    moment = moment_of(created)
    return None if moment is None else (datetime.now(UTC) - moment).total_seconds()


def _console(*, stderr: bool, width: int | None = None) -> Console:
    console = Console(stderr=stderr, width=width, highlight=False, emoji=False)
    if console.no_color:  # rich leaves out colours only, and would still write in bold
        console = Console(stderr=stderr, width=width, highlight=False, emoji=False, color_system=None)
    return console
