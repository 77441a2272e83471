"""`megacache explain`."""

from collections.abc import Sequence

import click

from megacache._catalog import Catalog
from megacache._cli._app import EXIT_NO
from megacache._cli._here import Here, here_from
from megacache._cli._options import json_option, with_store
from megacache._cli._output import emit, print_table, say
from megacache._cli._views import View
from megacache._environment import Mismatch
from megacache._explanation import counted
from megacache._guard import mismatches
from megacache._inventory import Inventory, nearest_other
from megacache._store import Store


@click.command("explain")
@with_store(timeout=60, required=False)
@click.option(
    "--here",
    "here_file",
    type=click.Path(),
    metavar="FILE",
    help="Another machine, as its `megacache env --json` tells.",
)
@json_option
def explain_command(*, store: Store, here_file: str | None, as_json: bool) -> None:
    """Say whether this machine would find anything in a cache, and if not, why.

    Exits with 1 if it would miss. Which graphs of a program miss only the program itself can tell:
    `megacache.explain()` in it does.

    \b
    Example:
      megacache explain s3://bucket/flux/v1
    """  # noqa: D301 - as click wants it
    found = here_from(here_file).of_epoch(store.epoch)
    view = _view(store, found)
    if as_json:
        emit({"url": store.url, "here": found.prefix.path, **view}, command="explain")
    else:
        _print(store.url, found, view)
    if not view["bundles"]:
        click.get_current_context().exit(EXIT_NO)


def _view(store: Store, found: Here) -> View:
    holdings = {one.prefix: one for one in Inventory.of(store).holdings}
    own = holdings.get(found.prefix)
    if own is not None and own.visible:
        manifests = [done.value for done in Catalog(store, own.prefix).read(own.visible)]
        differing = {
            one.bundle: mismatches(found.guard, one.files.guard) for one in manifests if one and one.files.index
        }
        return {
            "bundles": len([one for one in manifests if one is not None]),
            "mismatches": [],
            "files_left_out": {bundle: _plain(facts) for bundle, facts in sorted(differing.items()) if facts},
            "others": len(holdings) - 1,
        }
    nearest, others = nearest_other(store, found.environment)
    differing_facts = found.environment.mismatches(nearest) if nearest else ()
    return {"bundles": 0, "mismatches": _plain(differing_facts), "files_left_out": {}, "others": others}


def _plain(differing: Sequence[Mismatch]) -> list[View]:
    return [{"fact": one.fact, "here": one.here, "there": one.there} for one in differing]


def _print(url: str, found: Here, view: View) -> None:
    others = counted(view["others"], "environment")
    if view["bundles"]:
        say("{} under {} for {}", counted(view["bundles"], "bundle"), url, found.prefix.path)
    elif not view["others"]:
        say("nothing is published under {}", url)
    else:
        say("nothing under {} fits {}; the nearest of {} differs:", url, found.prefix.path, others)
    rows = [("", one["fact"], one["here"], one["there"]) for one in view["mismatches"]]
    for bundle, facts in view["files_left_out"].items():
        rows += [(f"files of {bundle}", one["fact"], one["here"], one["there"]) for one in facts]
    if rows:
        print_table(("", "FACT", "HERE", "THERE"), rows)
