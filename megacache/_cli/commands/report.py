"""`megacache report`."""

import click

from megacache._catalog import read_figures
from megacache._cli.options import json_option, with_store
from megacache._cli.output import emit, print_text, say
from megacache._cli.report import figures_view, openmetrics
from megacache._cli.selection import nothing_under, stock_of
from megacache._cli.target import check_folder, write_file
from megacache._store import Store


@click.command("report")
@with_store(timeout=600, required=False)
@click.option(
    "--format",
    "form",
    type=click.Choice(["openmetrics"]),
    default="openmetrics",
    show_default=True,
    help="How to write it.",
)
@click.option("-o", "--output", "file", type=click.Path(dir_okay=False), metavar="FILE", help="Write it to a file.")
@json_option
def report_command(*, store: Store, form: str, file: str | None, as_json: bool) -> None:
    """Tell what a cache holds in figures.

    For each environment: bundles, bytes, artifacts, compiled files, and dates of publications. All manifests are read.
    A file that is there already is replaced. With --json, the figures are printed beside.

    \b
    Example:
      megacache report s3://bucket/flux/v1 --format openmetrics -o megacache.prom
    """  # noqa: D301 - as click wants it
    del form
    if file is not None:
        check_folder(file)
    environments = read_figures(store, stock_of(store).holdings)
    if not environments:
        say("{}", nothing_under(store.url))
    text = openmetrics(store.url, environments)
    if file is not None:
        write_file(file, f"{text}\n".encode())
    if as_json:
        emit({"url": store.url, "environments": list(map(figures_view, environments))}, command="report")
    elif file is None:
        print_text(text)
