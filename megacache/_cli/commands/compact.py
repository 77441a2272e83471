"""`megacache compact`."""

from collections.abc import Sequence
from typing import Any

import click

from megacache._catalog import Compacted, Compaction, CompactionPlan
from megacache._cli.confirmation import ask
from megacache._cli.exit_codes import exit_code_of
from megacache._cli.options import json_option, refuse_if_read_only, with_selection, with_signing, with_store
from megacache._cli.output import emit, print_table, progress_bar, say, size_text
from megacache._cli.selection import Selection, nothing_under, stock_of
from megacache._cli.views import failed_view, place_view
from megacache._runtime import call, counted
from megacache._settings import Settings
from megacache._store import Store
from megacache._trust import Keys


@click.command("compact")
@with_store(timeout=3600)
@with_selection
@with_signing
@click.option("--dry-run", is_flag=True, help="Only show what would be merged.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def compact_command(*, store: Store, selection: Selection, keys: Keys, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Merge bundles, so that a warm start makes fewer requests.

    What is merged, of each environment apart, is read, verified and written anew, and its sources are superseded:
    readers take the merged bundle from their next start on, and `megacache gc` deletes the others a day later. Nobody
    has to wait. Bundles that are quarantined, pinned, damaged, large or not trusted stay as they are. Of a store that
    is signed, the merged bundle is signed by --key. From then on, the merged bundle is the one to be quarantined.

    \b
    Example:
      megacache compact s3://bucket/flux/v1 --dry-run
    """  # noqa: D301 - as click wants it
    signing = call(lambda: keys.signing(Settings.read()), deadline=store.deadline, doing="loading the keys")
    jobs = [Compaction(store, holding, signing) for holding in selection.of(stock_of(store), store)]
    plans = [job.plan() for job in jobs]
    if not as_json:
        _print(plans, store.url)
    done: list[Compacted] = []
    if any(plan.merges for plan in plans) and not dry_run:
        refuse_if_read_only()
        if not yes:
            bundles = counted(sum(plan.bundles for plan in plans), "bundle")
            ask(f"Merge {bundles} of {store.url} into {_targets(plans)}?", "nothing was merged")
        with progress_bar("compacting") as progress:
            done = [job.apply(plan, progress) for job, plan in zip(jobs, plans, strict=True)]
    failed = [fault for one in done for fault in one.failed]
    if as_json:
        emit({"url": store.url, "dry_run": dry_run, "environments": _views(plans, done)}, command="compact")
    else:
        _tell(done, store.url)
    if failed:
        click.get_current_context().exit(exit_code_of(failed[0][1]))


def _targets(plans: Sequence[CompactionPlan]) -> int:
    return sum(len(plan.merges) for plan in plans)


def _views(plans: Sequence[CompactionPlan], done: Sequence[Compacted]) -> list[dict[str, Any]]:
    results = {one.prefix: one for one in done}
    views = []
    for plan in plans:
        result = results.get(plan.prefix)
        views.append(
            {
                **place_view(plan.prefix),
                "planned": [[one.bundle for one in sources] for sources in plan.merges],
                "staying": [{"bundle": bundle, "reason": why} for bundle, why in plan.staying],
                "merged": {into: list(sources) for into, sources in result.merged.items()} if result else {},
                "failed": failed_view(result.failed) if result else [],
                "bytes": plan.size,
            }
        )
    return views


def _print(plans: Sequence[CompactionPlan], url: str) -> None:
    if not plans:
        say("{}", nothing_under(url))
        return
    rows = [
        (plan.prefix.path, plan.bundles, len(plan.merges), len(plan.staying), size_text(plan.size)) for plan in plans
    ]
    headers = ("ENVIRONMENT", "BUNDLES", "INTO", "STAYING", "SIZE")
    print_table(headers, rows, numbers=headers[1:])
    for bundle, why in (one for plan in plans for one in plan.staying):
        say("{} stays: {}", bundle, why)


def _tell(done: Sequence[Compacted], url: str) -> None:
    for result in done:
        for bundle, fault in result.failed:
            say("[bold red]not merged:[/] {}: {}", bundle, fault)
        for into, sources in result.merged.items():
            say("bundle {} supersedes {}", into, counted(len(sources), "bundle"))
    if any(result.merged for result in done):
        say("if anything in it proves bad, quarantine the merged bundle: `megacache quarantine {} BUNDLE`", url)
