"""`megacache report`."""

from datetime import UTC, datetime

import click

from megacache._catalog import EnvironmentFigures, read_figures
from megacache._cli.options import json_option, with_store
from megacache._cli.output import emit, print_text, say
from megacache._cli.report import check_extra, figures_view, openmetrics, page
from megacache._cli.selection import nothing_under, stock_of
from megacache._cli.target import check_folder, write_file
from megacache._store import Store

_PAGE, _METRICS = "html", "openmetrics"


@click.command("report")
@with_store(timeout=600, required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice([_PAGE, _METRICS]),
    default=_PAGE,
    show_default=True,
    help="A page for people, or metrics for Prometheus.",
)
@click.option("-o", "--output", "file", type=click.Path(dir_okay=False), metavar="FILE", help="Write it to a file.")
@json_option
def report_command(*, store: Store, form: str, file: str | None, as_json: bool) -> None:
    """Tell what a cache holds in figures.

    GPU types and versions of torch, bundles, sizes, ages and publishers; all manifests are read. A page is written to a
    file, needs megacache[report], and asks the network for nothing. Metrics may also go to stdout. A file that is there
    already is replaced. With --json, the figures are printed, and a file is written only if -o names it.

    \b
    Example:
      megacache report s3://bucket/flux/v1 -o report.html
    """  # noqa: D301 - as click wants it
    if file is not None:
        check_folder(file)
    elif form == _PAGE and not as_json:
        raise click.UsageError("A page is written to a file: name it with -o, or ask for --format openmetrics.")
    if file is not None and form == _PAGE:
        check_extra()
    environments = read_figures(store, stock_of(store).holdings)
    if not environments:
        say("{}", nothing_under(store.url))
    if file is not None:
        write_file(file, f"{_text(form, store.url, environments)}\n".encode(errors="replace"))
        say("{} written", file)
    if as_json:
        emit({"url": store.url, "environments": list(map(figures_view, environments))}, command="report")
    elif file is None:
        print_text(_text(form, store.url, environments))


def _text(form: str, url: str, environments: tuple[EnvironmentFigures, ...]) -> str:
    if form == _PAGE:
        return page(url, environments, datetime.now(UTC))
    return openmetrics(url, environments)
