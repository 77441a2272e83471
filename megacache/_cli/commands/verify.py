"""`megacache verify`."""

import click

from megacache._catalog import Holding, Verified, verify
from megacache._cli.exit_codes import EXIT_NO, exit_code_of
from megacache._cli.options import json_option, with_destination, with_policy, with_selection, with_store
from megacache._cli.output import emit, print_table, progress_bar, say, size_text
from megacache._cli.selection import Selection, nothing_under, stock_of
from megacache._cli.views import View, place_view
from megacache._runtime import counted
from megacache._store import Store
from megacache._trust import TrustPolicy
from megacache.errors import BundleError, MissingError, StoreError


@click.command("verify")
@with_store(timeout=3600, required=False)
@with_selection
@with_policy
@with_destination
@json_option
def verify_command(*, store: Store, selection: Selection, policy: TrustPolicy | None, as_json: bool) -> None:
    """Read everything in a cache, and say whether it is sound.

    What is stored is compared with its digests and manifests, and with trusted keys. Exits with 1 if a bundle is
    damaged or not signed as it should be, or if there is none; with 3 if the store would not give all of them.

    \b
    Example:
      megacache verify s3://bucket/flux/v1
    """  # noqa: D301 - as click wants it
    chosen = selection.of(stock_of(store), store)
    with progress_bar("verifying") as progress:
        found = [(holding, verify(store, holding, progress, policy)) for holding in chosen]
    views = [_view(holding, verified) for holding, verified in found]
    code = _exit_code([verified for _, verified in found])
    if as_json:
        emit({"url": store.url, "sound": code == 0, "environments": views}, command="verify")
    else:
        _print(views, store.url)
    if code:
        click.get_current_context().exit(code)


def _exit_code(found: list[Verified]) -> int:
    # A bundle that is not whole is damaged; a store that did not answer is another matter.
    verdicts = [verdict for verified in found for verdict in verified.verdicts]
    faults = [fault for verdict in verdicts for fault in verdict.faults]
    if not verdicts or any(isinstance(fault, BundleError | MissingError) for fault in faults):
        return EXIT_NO
    return next((exit_code_of(fault) for fault in faults if isinstance(fault, StoreError)), 0)


def _view(holding: Holding, found: Verified) -> View:
    return {
        **place_view(holding.prefix),
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


def _print(views: list[View], url: str) -> None:
    bundles = [(view, one) for view in views for one in view["bundles"]]
    if not bundles:
        say("{}", nothing_under(url))
        return
    rows = []
    for view, one in bundles:
        verdict = "; ".join(fault["message"] for fault in one["faults"]) or "sound"
        note = " ".join([*one["marks"], verdict])
        rows.append((view["device"], view["fingerprint"], one["bundle"], size_text(one["bytes_stored"]), note))
    print_table(("DEVICE", "ENVIRONMENT", "BUNDLE", "SIZE", "VERDICT"), rows, numbers=("SIZE",))
    size = size_text(sum(one["bytes_stored"] for _, one in bundles))
    sound = sum(not one["faults"] for _, one in bundles)
    say("{} of {} sound, of {} stored", sound, counted(len(bundles), "bundle"), size)
    if orphans := sum(len(view["orphans"]) for view in views):
        message = "{} in no bundle: an interrupted publication left them, and no reader sees them"
        say(message, counted(orphans, "chunk"))
