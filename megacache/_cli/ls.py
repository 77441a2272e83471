"""`megacache ls`."""

from contextlib import closing, suppress

import click

from megacache._cli._here import Asking
from megacache._cli._options import json_option, with_selection, with_store
from megacache._cli._output import age_text, emit, print_table, say, size_text
from megacache._cli._selection import Selection
from megacache._cli._views import View, counts_text, environment_view, labels_text
from megacache._inventory import Inventory
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
    asking = Asking() if tell_here else None
    with closing(_Ended(asking)):
        inventory = Inventory.of(store)
        chosen = selection.of(inventory, store.url)
        views = [environment_view(store, holding) for holding in chosen]
        own = _own(asking) if chosen or as_json else None
    for view in views:
        view["here"] = None if own is None else own == f"{view['device']}/{view['fingerprint']}"
    if as_json:
        emit({"url": store.url, "environments": views, "strangers": list(inventory.strangers)}, command="ls")
        return
    if not views:
        say("nothing is published under {}", store.url)
    elif bundles:
        _print_bundles(views)
    else:
        _print_environments(views)
    if inventory.strangers:
        say("{} objects there are not megacache's, such as {}", len(inventory.strangers), inventory.strangers[0])


class _Ended:
    """Leaves no child behind."""

    def __init__(self, asking: Asking | None) -> None:
        self._asking = asking

    def close(self) -> None:
        if self._asking is not None:
            self._asking.give_up()


def _own(asking: Asking | None) -> str | None:
    """Tell where this machine's bundles would lie; None if that cannot be known."""
    if asking is None:
        return None
    with suppress(MegacacheError):
        return asking.answer().prefix.path
    return None


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
                age_text(usable[0]["created"]) if usable else "",
                "this machine" if view["here"] else "",
            )
        )
    headers = ("DEVICE", "ENVIRONMENT", "BUNDLES", "ARTIFACTS", "FILES", "SIZE", "NEWEST", "")
    print_table(headers, rows, numbers=headers[2:6])


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
