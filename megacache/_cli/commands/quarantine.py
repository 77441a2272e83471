"""`megacache quarantine`."""

from collections.abc import Sequence

import click

from megacache._bundle import QUARANTINED
from megacache._catalog import Catalog, heirs
from megacache._cli.options import json_option, refuse_if_read_only, with_selection, with_store
from megacache._cli.output import emit, say
from megacache._cli.selection import Selection, bundle_of, stock_of
from megacache._cli.views import place_view
from megacache._store import Store


@click.command("quarantine")
@with_store(timeout=60)
@click.argument("bundle", metavar="BUNDLE")
@click.option("--lift", is_flag=True, help="Give it back to readers.")
@with_selection
@json_option
def quarantine_command(*, store: Store, bundle: str, lift: bool, selection: Selection, as_json: bool) -> None:
    """Take a bundle out of service for every reader.

    BUNDLE is its id, or the beginning of it. Readers leave it out from their next start on; what it held is published
    again by the next process that compiles it. Until `megacache gc` deletes it, after its grace period, --lift gives it
    back; a pinned bundle is not deleted. If `megacache compact` has merged it into another, the command names the
    other, which has to be quarantined, too. To disown everything at once, use another URL, such as …/v2.

    \b
    Example:
      megacache quarantine s3://bucket/flux/v1 3f9c2b7a
    """  # noqa: D301 - as click wants it
    refuse_if_read_only()
    holding, found = bundle_of(selection.of(stock_of(store), store), bundle, store.url)
    catalog = Catalog(store, holding.prefix)
    also: Sequence[str] = ()
    if lift:
        changed = QUARANTINED in holding.marks.get(found, ())
        catalog.unmark(found, QUARANTINED)
    else:
        changed = catalog.mark(found, QUARANTINED)
        also = heirs(store, holding, found)
    if as_json:
        place = place_view(holding.prefix)
        emit(
            {
                "url": store.url,
                **place,
                "bundle": found,
                "quarantined": not lift,
                "changed": changed,
                "also_in": list(also),
            },
            command="quarantine",
        )
        return
    say("bundle {} is {}", found, "back in service" if lift else "out of service")
    for one in also:
        say("[bold yellow]not enough:[/] bundle {} holds the same and is in service: quarantine it, too", one)
