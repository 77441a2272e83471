"""`megacache gc`."""

import time
from collections.abc import Sequence
from typing import Any

import click

from megacache._catalog import (
    ExpiryPlan,
    RetentionPlan,
    Terms,
    list_receipts,
    plan_expiry,
    plan_retention,
    receipts_beside,
)
from megacache._cli.confirmation import ask
from megacache._cli.options import json_option, refuse_if_read_only, with_selection, with_store
from megacache._cli.output import emit, print_table, progress_bar, say, size_text
from megacache._cli.quantities import size, span
from megacache._cli.selection import Selection, nothing_under, stock_of
from megacache._cli.views import place_view
from megacache._runtime import ProgressCallback, counted
from megacache._store import Store
from megacache.errors import AccessError, SettingsError, StoreError

_LEAST_GRACE = 3 * 3_600.0
"""Seconds: writers rely for an hour on chunks that lie there, and clocks may differ by an hour or two."""


def _grace(text: str) -> float:
    given = span(text)
    if 0 < given < _LEAST_GRACE:
        raise click.BadParameter(
            f"{text} is too short: publications rely for an hour on chunks that lie there, and clocks may differ by an "
            "hour or two; give 3h or more, or 0 if nobody reads or writes meanwhile"
        )
    return given


@click.command("gc")
@with_store(timeout=3600)
@with_selection
@click.option(
    "--grace",
    type=_grace,
    default="24h",
    show_default=True,
    metavar="SPAN",
    help="Keep withdrawn bundles and chunks of no bundle for this long: 3h or more, or 0 if nobody reads or writes "
    "meanwhile.",
)
@click.option("--older-than", type=span, metavar="SPAN", help="Withdraw environments not published to for this long.")
@click.option(
    "--keep",
    type=click.IntRange(1),
    metavar="N",
    help="For each GPU type, keep the N environments published to last, and withdraw the others.",
)
@click.option(
    "--max-size",
    type=size,
    metavar="SIZE",
    help="Withdraw environments that do not fit into this size, the latest published counted first; the newest stays.",
)
@click.option("--dry-run", is_flag=True, help="Only show what would be done.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def gc_command(
    *,
    store: Store,
    selection: Selection,
    grace: float,
    older_than: float | None,
    keep: int | None,
    max_size: int | None,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Delete what nobody reads any more.

    It deletes superseded and quarantined bundles, what interrupted publications left, and stale leases, all after a
    grace period: readers and writers may be at work meanwhile. Environments go only if an option says which; they are
    withdrawn, which readers notice at their next start, and deleted by the first run after the grace period. Pinned
    bundles stay. Receipts go after 30 days, but not if only some environments are chosen. A run that was cut short is
    taken up by running it again. Spans are written as in 90d or 24h, sizes as in 50GB.

    \b
    Example:
      megacache gc s3://bucket/flux/v1 --older-than 90d --dry-run
    """  # noqa: D301 - as click wants it
    terms = Terms(now=time.time(), grace=grace, older_than=older_than, keep=keep, max_size=max_size)
    plans = _plans(store, selection, terms)
    receipts, expiry = _expired_receipts(store, selection, terms.now)
    if not as_json:
        _print(plans, store.url)
        _tell_receipts(expiry)
    if not dry_run and not (all(plan.empty for plan in plans) and not expiry.keys):
        refuse_if_read_only()
        if not yes:
            ask(_question(plans, expiry, store.url), "nothing was deleted")
            # Which environments are the newest may have changed while somebody thought about it.
            latest = {plan.prefix: plan for plan in _plans(store, selection, terms)}
            plans = [plan.still(latest[plan.prefix]) for plan in plans if plan.prefix in latest]
        with progress_bar("deleting", objects=True) as progress:
            # Each is looked at once more in its turn, for a run over many environments takes long.
            plans = [plan.checked(store, terms).apply(store, progress) for plan in plans]
            expiry = _expire(receipts, expiry, progress)
        deleted = sum(len(plan.removal.keys) for plan in plans) + len(expiry.keys)
        say("{} deleted from {}", counted(deleted, "object"), store.url)
        if withdrawn := sum(len(plan.withdrawn) for plan in plans):
            message = "{} withdrawn: the first run after the grace period deletes them; `megacache pin` gives one back"
            say(message, counted(withdrawn, "bundle"))
    if as_json:
        done = {"dry_run": dry_run, "environments": list(map(_view, plans)), "receipts": len(expiry.keys)}
        emit({"url": store.url, **done}, command="gc")


def _plans(store: Store, selection: Selection, terms: Terms) -> Sequence[RetentionPlan]:
    return plan_retention(store, selection.of(stock_of(store), store), terms)


def _expired_receipts(store: Store, selection: Selection, now: float) -> tuple[Store, ExpiryPlan]:
    """Decide which receipts go, and say where they lie; who may not list them still gets the rest done."""
    none = store, plan_expiry((), now)
    if selection.narrows:
        return none
    try:
        receipts = receipts_beside(store)
        return receipts, plan_expiry(list_receipts(receipts), now)
    except SettingsError:  # nothing lies beside it
        return none
    except StoreError as error:
        say("receipts were not deleted: {}", error)
        return none


def _expire(receipts: Store, plan: ExpiryPlan, progress: ProgressCallback) -> ExpiryPlan:
    """Delete receipts, and give what was done; who may not delete them has got the rest done."""
    try:
        plan.apply(receipts, progress)
    except AccessError as error:
        say("receipts were not deleted: {}", error)
        return plan_expiry((), 0)
    return plan


def _tell_receipts(plan: ExpiryPlan) -> None:
    if plan.keys:
        say("{} older than 30 days", counted(len(plan.keys), "receipt"))
    if plan.untold:
        say("{} stay: the store does not tell how old they are", counted(plan.untold, "receipt"))


def _question(plans: Sequence[RetentionPlan], expiry: ExpiryPlan, url: str) -> str:
    objects = counted(sum(len(plan.removal.keys) for plan in plans) + len(expiry.keys), "object")
    size = size_text(sum(plan.removal.size for plan in plans))
    withdrawn = counted(sum(len(plan.withdrawn) for plan in plans), "bundle")
    return f"Delete {objects}, {size}, from {url} for good, and withdraw {withdrawn}?"


def _view(plan: RetentionPlan) -> dict[str, Any]:
    removal = plan.removal
    return {
        **place_view(plan.prefix),
        "withdrawn": list(plan.withdrawn),
        "bundles": list(removal.bundles),
        "chunks": len(removal.chunks),
        "objects": len(removal.keys),
        "bytes": removal.size,
        "chunks_kept": removal.kept,
        "waiting": plan.waiting,
        "age_unknown": plan.untold,
    }


def _print(plans: Sequence[RetentionPlan], url: str) -> None:
    if not plans:
        say("{}", nothing_under(url))
        return
    headers = ("ENVIRONMENT", "WITHDRAWN", "WAITING", "BUNDLES", "CHUNKS", "OBJECTS", "SIZE", "")
    rows = []
    for plan in plans:
        one = plan.removal
        counts = len(plan.withdrawn), plan.waiting, len(one.bundles), len(one.chunks), len(one.keys)
        rows.append((plan.prefix.path, *counts, size_text(one.size), _note(plan)))
    print_table(headers, rows, numbers=headers[1:7])


def _note(plan: RetentionPlan) -> str:
    if plan.removal.kept:
        return f"{counted(plan.removal.kept, 'chunk')} kept: a manifest cannot be read, and may name them"
    return "the store does not tell how old objects are: they stay, unless --grace 0" if plan.untold else ""
