"""`megacache rm`."""

from typing import Any

import click

from megacache._catalog import Holding, RemovalPlan, plan_removal
from megacache._cli.confirmation import ask
from megacache._cli.options import json_option, refuse_if_read_only, with_selection, with_store
from megacache._cli.output import emit, print_table, progress_bar, say, size_text
from megacache._cli.selection import Selection, bundle_of, nothing_under, stock_of
from megacache._cli.views import place_view
from megacache._runtime import counted
from megacache._store import Store
from megacache.errors import SettingsError


@click.command("rm")
@with_store(timeout=3600)
@click.argument("bundles", metavar="[BUNDLE]...", nargs=-1)
@with_selection
@click.option("--all", "everything", is_flag=True, help="All that is published under URL.")
@click.option("--dry-run", is_flag=True, help="Only show what would be removed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@json_option
def rm_command(
    *,
    store: Store,
    bundles: tuple[str, ...],
    selection: Selection,
    everything: bool,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    """Remove bundles, environments or a whole cache for good.

    It asks first. BUNDLE is an id, or the beginning of it. Chunks that other bundles need are kept. Let nobody publish
    to the same environment meanwhile: a publication may rely on a chunk that is being removed, and its bundle is then
    left out.

    \b
    Example:
      megacache rm s3://bucket/flux/v1 --environment 3f9c2b7a10d4e6f8 --dry-run
    """  # noqa: D301 - as click wants it
    _check_request(bundles, selection, everything=everything)
    chosen = selection.of(stock_of(store), store)
    plans = [plan_removal(store, holding, names) for holding, names in _wanted(chosen, bundles, store.url)]
    # The plan is shown before anybody is asked.
    if not as_json:
        _print(plans, store.url)
    if plans and not dry_run:
        refuse_if_read_only()
        if not yes:
            _ask(plans, store.url)
        with progress_bar("removing", objects=True) as progress:
            for plan in plans:
                plan.apply(store, progress)
        say("removed from {}", store.url)
    if as_json:
        emit({"url": store.url, "dry_run": dry_run, "removed": list(map(_view, plans))}, command="rm")


def _check_request(bundles: tuple[str, ...], selection: Selection, *, everything: bool) -> None:
    named = bool(bundles) or selection.narrows
    if everything and named:
        raise SettingsError("--all contradicts what else is named", hint="leave one of them out")
    if not everything and not named:
        raise SettingsError("no bundle or environment is named", hint="name bundles, --environment, --device or --all")


def _wanted(chosen: tuple[Holding, ...], names: tuple[str, ...], url: str) -> list[tuple[Holding, list[str]]]:
    """Give what is to go of each environment; nothing goes if one name is wrong."""
    if not names:
        return [(holding, list(holding.manifests)) for holding in chosen]
    found = [bundle_of(chosen, name, url) for name in names]
    wanted = [(one, [bundle for holding, bundle in found if holding is one]) for one in chosen]
    return [(holding, bundles) for holding, bundles in wanted if bundles]


def _ask(plans: list[RemovalPlan], url: str) -> None:
    bundles = counted(sum(len(plan.bundles) for plan in plans), "bundle")
    size = size_text(sum(plan.size for plan in plans))
    ask(f"Remove {bundles}, {size}, from {url} for good?", "nothing was removed")


def _view(plan: RemovalPlan) -> dict[str, Any]:
    return {
        **place_view(plan.prefix),
        "bundles": list(plan.bundles),
        "chunks": len(plan.chunks),
        "bytes": plan.size,
        "chunks_kept": plan.kept,
    }


def _print(plans: list[RemovalPlan], url: str) -> None:
    if not plans:
        say("{}", nothing_under(url))
        return
    rows = [
        (plan.prefix.path, len(plan.bundles), len(plan.chunks), size_text(plan.size), _note(plan)) for plan in plans
    ]
    print_table(("ENVIRONMENT", "BUNDLES", "CHUNKS", "SIZE", ""), rows, numbers=("BUNDLES", "CHUNKS", "SIZE"))


def _note(plan: RemovalPlan) -> str:
    return f"{counted(plan.kept, 'chunk')} kept: a manifest cannot be read, and may name them" if plan.kept else ""
