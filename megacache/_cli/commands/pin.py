"""`megacache pin`."""

from collections.abc import Iterator, Sequence

import click

from megacache._bundle import PINNED
from megacache._catalog import Catalog, Holding
from megacache._cli.options import json_option, refuse_if_read_only, with_selection, with_store
from megacache._cli.output import emit, say
from megacache._cli.selection import Selection, bundle_of, stock_of
from megacache._cli.views import place_view
from megacache._store import Store
from megacache.errors import MissingError, SettingsError


@click.command("pin")
@with_store(timeout=600)
@click.argument("bundles", metavar="[BUNDLE]...", nargs=-1)
@click.option("--remove", is_flag=True, help="Take the pin away.")
@with_selection
@json_option
def pin_command(*, store: Store, bundles: tuple[str, ...], remove: bool, selection: Selection, as_json: bool) -> None:
    """Keep bundles, whatever `gc` and `compact` are asked for.

    BUNDLE is an id, or the beginning of it; without one, all visible bundles of the environments that are named are
    pinned. A pinned bundle is not merged, not deleted by `gc`, and in service even if it is superseded, but not if it
    is quarantined. What is published later is not pinned.

    \b
    Example:
      megacache pin s3://bucket/flux/v1 --environment 3f9c2b7a10d4e6f8
    """  # noqa: D301 - as click wants it
    refuse_if_read_only()
    if not bundles and not selection.narrows:
        raise SettingsError("nothing was named", hint="name bundles, --environment, --device or --mine")
    chosen = selection.of(stock_of(store), store)
    named = [bundle_of(chosen, name, store.url) for name in bundles]
    views = []
    for holding, bundle in named or _all(chosen, remove=remove):
        changed = _unpin(store, holding, bundle) if remove else _pin(store, holding, bundle)
        views.append({**place_view(holding.prefix), "bundle": bundle, "changed": changed})
        if not as_json:
            say("bundle {} is {}", bundle, "not pinned" if remove else "pinned")
    if as_json:
        emit({"url": store.url, "pinned": not remove, "bundles": views}, command="pin")


def _all(chosen: Sequence[Holding], *, remove: bool) -> Iterator[tuple[Holding, str]]:
    for holding in chosen:
        bundles = (
            [one for one in holding.manifests if PINNED in holding.marks.get(one, ())] if remove else holding.visible
        )
        yield from ((holding, bundle) for bundle in sorted(bundles))


def _pin(store: Store, holding: Holding, bundle: str) -> bool:
    """Pin a bundle; raise `MissingError` if it was deleted a moment before."""
    catalog = Catalog(store, holding.prefix)
    changed = catalog.mark(bundle, PINNED)
    listing = catalog.list()
    if bundle not in listing.visible and bundle not in listing.quarantined:
        raise MissingError(
            f"bundle {bundle} has just been deleted", hint="`megacache ls --bundles` shows what there is"
        )
    return changed


def _unpin(store: Store, holding: Holding, bundle: str) -> bool:
    pinned = PINNED in holding.marks.get(bundle, ())
    if pinned:
        Catalog(store, holding.prefix).unpin(bundle)
    return pinned
