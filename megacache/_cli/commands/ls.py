"""`megacache ls`."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import click

from megacache._cli.machine import Asking, has_torch
from megacache._cli.options import json_option, with_selection, with_store
from megacache._cli.output import age_text, emit, print_table, say, size_text, span_text
from megacache._cli.selection import Selection, nothing_under, stock_of
from megacache._cli.views import View, counts_text, environment_view, labels_text
from megacache._runtime import counted
from megacache._store import Store
from megacache.errors import MegacacheError

_SHORT = 12


@click.command("ls")
@with_store(timeout=60, required=False)
@with_selection
@click.option("--bundles", is_flag=True, help="One line for each bundle.")
@click.option(
    "--here/--no-here",
    "tell_here",
    default=True,
    help="Tell which environment is this machine's: asks PyTorch, which takes seconds.",
)
@json_option
def ls_command(*, store: Store, selection: Selection, bundles: bool, tell_here: bool, as_json: bool) -> None:
    """List GPU types, environments and bundles in a cache.

    \b
    Example:
      megacache ls s3://bucket/flux/v1 --bundles
    """  # noqa: D301 - as click wants it
    with _places_of_machine(asked=tell_here and not selection.mine) as places_of_machine:
        inventory = stock_of(store)
        chosen = selection.of(inventory, store)
        views = [environment_view(store, holding) for holding in chosen]
        own = places_of_machine() if chosen else None
    for view in views:
        path = f"{view['device']}/{view['fingerprint']}"
        view["here"] = True if selection.mine else None if own is None else path in own
    if as_json:
        emit({"url": store.url, "environments": views, "strangers": list(inventory.strangers)}, command="ls")
        return
    if not views:
        say("{}", nothing_under(store.url))
    elif bundles:
        _print_bundles(views)
    else:
        _print_environments(views)
    if inventory.strangers:
        count = counted(len(inventory.strangers), "object")
        say("{} that megacache did not write, such as {}", count, inventory.strangers[0])


@contextmanager
def _places_of_machine(*, asked: bool) -> Iterator[Callable[[], Sequence[str] | None]]:
    """Ask PyTorch while the store answers; it gives None if that is not wanted or cannot be known."""
    asking = Asking() if asked and has_torch() else None

    def answer() -> Sequence[str] | None:
        try:
            return None if asking is None else [prefix.path for prefix in asking.answer().prefixes]
        except MegacacheError as error:
            say("the environment of this machine is not known: {}", error)
            return None

    try:
        yield answer
    finally:
        if asking is not None:
            asking.give_up()


def _print_environments(views: list[View]) -> None:
    rows = []
    for view in views:
        usable = [one for one in view["bundles"] if one["fault"] is None]
        rows.append(
            (
                view["device"],
                view["fingerprint"],
                len(view["bundles"]),
                sum(sum(one["artifacts"].values()) for one in usable),
                sum(one["files"] for one in usable),
                size_text(view["bytes"]),
                _newest(usable),
                "this machine" if view["here"] else "",
            )
        )
    headers = ("DEVICE", "ENVIRONMENT", "BUNDLES", "ARTIFACTS", "FILES", "SIZE", "NEWEST", "")
    print_table(headers, rows, numbers=headers[2:6])
    if unusable := sum(one["fault"] is not None for view in views for one in view["bundles"]):
        say(
            "{} not counted: `megacache ls --bundles` says why",
            counted(unusable, "bundle"),
        )


def _newest(bundles: list[View]) -> str:
    ages = [one["age_seconds"] for one in bundles if one["age_seconds"] is not None]
    return span_text(min(ages)) if ages else ""


def _print_bundles(views: list[View]) -> None:
    rows = []
    for view in views:
        for one in view["bundles"]:
            notes = [*one["marks"], labels_text(one.get("labels", {})), one["fault"] or ""]
            rows.append(
                (
                    view["device"],
                    view["fingerprint"],
                    one["bundle"][:_SHORT],
                    counts_text(one.get("artifacts", {})),
                    one.get("files", ""),
                    size_text(one["bytes_stored"]) if "bytes_stored" in one else "",
                    age_text(one["created"]) if "created" in one else "",
                    " ".join(filter(None, notes)),
                )
            )
    headers = ("DEVICE", "ENVIRONMENT", "BUNDLE", "ARTIFACTS", "FILES", "SIZE", "AGE", "")
    print_table(headers, rows, numbers=headers[4:6])
