"""`megacache report`."""

import time
from datetime import UTC, datetime

import click

from megacache._catalog import EnvironmentFigures, Worths, read_figures, read_worths, receipts_beside
from megacache._cli.options import json_option, with_store
from megacache._cli.output import emit, print_text, say
from megacache._cli.report import check_extra, figures_view, openmetrics, page, worths_view
from megacache._cli.selection import nothing_under, stock_of
from megacache._cli.target import check_folder, write_file
from megacache._runtime import counted
from megacache._store import Store
from megacache.errors import SettingsError, StoreError

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

    GPU types and versions of torch, bundles, sizes, ages and publishers; all manifests are read. Where processes leave
    receipts (MEGACACHE_RECEIPTS=store), also hit rates, seconds saved and the commonest reasons of misses.

    A page is written to a file, needs megacache[report], and asks the network for nothing. Metrics may also go to
    stdout. A file that is there already is replaced. With --json, the figures are printed, and a file is written only
    if -o names it.

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
    worths = _worths(store)
    if file is not None:
        write_file(file, f"{_text(form, store.url, environments, worths)}\n".encode(errors="replace"))
        say("{} written", file)
    if as_json:
        figures = {"environments": list(map(figures_view, environments)), "receipts": worths_view(worths)}
        emit({"url": store.url, **figures}, command="report")
    elif file is None:
        print_text(_text(form, store.url, environments, worths))


def _worths(store: Store) -> Worths:
    """Read the receipts; who may not read them, or finds none, still gets the rest."""
    try:
        worths = read_worths(receipts_beside(store), time.time())
    except SettingsError:  # nothing lies beside it
        return Worths()
    except StoreError as error:
        say("receipts were left out: {}", error)
        return Worths()
    if worths.left_out:
        say("the oldest receipts were left out, those of {}", counted(worths.left_out, "process"))
    return worths


def _text(form: str, url: str, environments: tuple[EnvironmentFigures, ...], worths: Worths) -> str:
    if form == _PAGE:
        return page(url, environments, worths, datetime.now(UTC))
    return openmetrics(url, environments, worths)
