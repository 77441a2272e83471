"""`megacache verify`."""

import click

from megacache._cli._app import EXIT_NO
from megacache._cli._options import json_option, with_policy, with_selection, with_store
from megacache._cli._output import emit, print_table, progress_bar, say, size_text
from megacache._cli._selection import Selection
from megacache._cli._views import View
from megacache._explanation import counted
from megacache._inventory import Holding, Inventory
from megacache._results import ProgressCallback
from megacache._store import Store
from megacache._trust import TrustPolicy
from megacache._verification import verify


@click.command("verify")
@with_store(timeout=3600, required=False)
@with_selection
@with_policy
@json_option
def verify_command(*, store: Store, selection: Selection, policy: TrustPolicy | None, as_json: bool) -> None:
    """Read everything in a cache and compare it with its digests and manifests, and with trusted keys.

    Exits with 1 if a bundle is damaged or not signed as it should be, or if there is none.

    \b
    Example:
      megacache verify s3://bucket/flux/v1
    """  # noqa: D301 - as click wants it
    chosen = selection.of(Inventory.of(store), store.url)
    with progress_bar("verifying") as progress:
        views = [_view(store, holding, progress, policy) for holding in chosen]
    bundles = [bundle for view in views for bundle in view["bundles"]]
    damaged = [bundle for bundle in bundles if bundle["faults"]]
    if as_json:
        emit({"url": store.url, "sound": not damaged, "environments": views}, command="verify")
    else:
        _print(views)
        size = size_text(sum(bundle["bytes_stored"] for bundle in bundles))
        say("{} of {} sound, {} read", len(bundles) - len(damaged), counted(len(bundles), "bundle"), size)
        if orphans := sum(len(view["orphans"]) for view in views):
            told = "{} in no bundle: an interrupted publication leaves such, and no reader sees them"
            say(told, counted(orphans, "chunk"))
    if damaged or not bundles:
        click.get_current_context().exit(EXIT_NO)


def _view(store: Store, holding: Holding, progress: ProgressCallback, policy: TrustPolicy | None) -> View:
    found = verify(store, holding, progress, policy)
    return {
        "device": holding.prefix.device,
        "fingerprint": holding.prefix.fingerprint,
        "bundles": [
            {
                "bundle": one.bundle,
                "marks": sorted(holding.marks.get(one.bundle, ())),
                "bytes_stored": one.bytes_stored,
                "faults": [{"kind": type(fault).__name__, "message": str(fault)} for fault in one.faults],
            }
            for one in found.verdicts
        ],
        "orphans": [str(digest) for digest in found.orphans],
    }


def _print(views: list[View]) -> None:
    rows = []
    for view in views:
        for one in view["bundles"]:
            told = "; ".join(fault["message"] for fault in one["faults"]) or "sound"
            rows.append((view["device"], view["fingerprint"], one["bundle"], size_text(one["bytes_stored"]), told))
    if rows:
        print_table(("DEVICE", "ENVIRONMENT", "BUNDLE", "SIZE", "VERDICT"), rows, numbers=("SIZE",))
