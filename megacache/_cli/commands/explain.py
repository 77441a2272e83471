"""`megacache explain`."""

from collections.abc import Iterator, Sequence
from typing import TextIO

import click

from megacache._bundle import GUARD, PROGRAMS, SUPERSEDED, Manifest, Mismatch, fact_text, file_mismatches
from megacache._catalog import Catalog, Holding, Inventory, Places, catalog_of, nearest_other
from megacache._cli.exit_codes import EXIT_NO
from megacache._cli.machine import Here, here_from
from megacache._cli.options import json_option, with_places, with_policy
from megacache._cli.output import emit, print_table, say
from megacache._cli.selection import nothing_under, stock_of
from megacache._cli.views import View, failed_view, place_view, read_manifests
from megacache._runtime import counted
from megacache._trust import TrustPolicy
from megacache.errors import MegacacheError


@click.command("explain")
@with_places(timeout=60)
@click.option(
    "--env",
    "env_file",
    type=click.File("r", encoding="utf-8"),
    metavar="FILE",
    help="Another machine, as its `megacache env --json` tells; - reads stdin.",
)
@with_policy
@json_option
def explain_command(*, places: Places, policy: TrustPolicy | None, env_file: TextIO | None, as_json: bool) -> None:
    """Say whether a cache fits this machine, and if not, why.

    Exits with 1 if it would miss. Which graphs of a program miss only the program itself can tell:
    `megacache.explain()` in it does.

    \b
    Example:
      megacache explain s3://bucket/flux/v1
    """  # noqa: D301 - as click wants it
    found = here_from(env_file)
    stocks = list(_stocks(places))
    holdings = {one.prefix: one for stock in stocks for one in stock.holdings}
    own = [holdings.pop(prefix, Holding(prefix=prefix)) for prefix in found.prefixes]
    if len(places) > 1:
        held = [_in_all(catalog_of(places, found.environment, policy), found, stocks)]
    else:
        held = [(Catalog(places.store, one.prefix, policy, one.signatures), one) for one in own]
    view = {**_own_view(held, found), "others": sum(bool(one.visible) for one in holdings.values())}
    if not any(one.visible for _, one in held):
        nearest, _ = nearest_other(places.store, found.environment, policy)
        view["mismatches"] = _plain(found.environment.mismatches(nearest) if nearest else ())
    if as_json:
        emit({"url": places.url, **place_view(found.prefix), **view, "warnings": places.warnings}, command="explain")
    else:
        for warning in places.warnings:
            say("[bold yellow]warning:[/] {}", warning)
        _print(places.url, found, view)
    if not view["bundles"]:
        click.get_current_context().exit(EXIT_NO)


def _stocks(places: Places) -> Iterator[Inventory]:
    """List each place; of several, one that does not answer is left out, as by a warm start."""
    for place in places:
        try:
            stock = stock_of(place.for_listing())
        except MegacacheError as fault:
            if place.alone:
                raise
            place.fault = fault
        else:
            yield stock


def _in_all(catalog: Catalog, found: Here, stocks: Sequence[Inventory]) -> tuple[Catalog, Holding]:
    """Put together what all places hold for this machine, as a warm start does."""
    listing = catalog.list()
    held = [one for stock in stocks for one in stock.holdings if one.prefix in found.prefixes]
    there = {bundle: size for one in held for bundle, size in one.manifests.items()}
    withdrawn = there.keys() & listing.withdrawn
    holding = Holding(
        prefix=found.prefix,
        manifests={**listing.visible, **{bundle: there[bundle] for bundle in withdrawn}},
        marks=dict.fromkeys(withdrawn, frozenset({SUPERSEDED})),
        chunks={digest: size for one in held for digest, size in one.chunks.items()},
    )
    return catalog.knowing(listing), holding


def _own_view(held: Sequence[tuple[Catalog, Holding]], found: Here) -> View:
    read = [each for catalog, one in held for each in read_manifests(catalog, one, one.visible)]
    manifests = [manifest for _, manifest, fault in read if manifest is not None and fault is None]
    return {
        "bundles": len(manifests),
        "withdrawn": sum(len(one.manifests) - len(one.visible) for _, one in held),
        "failed": failed_view((bundle, fault) for bundle, _, fault in read if fault is not None),
        "mismatches": [],
        "files_left_out": {one.bundle: _plain(facts) for one in manifests if (facts := _left_out(found, one))},
        "programs": [_program_view(root, manifests) for root in sorted(set().union(*map(_programs, manifests)))],
    }


def _left_out(found: Here, manifest: Manifest) -> Sequence[Mismatch]:
    """Name the facts for which a warm start would leave out the compiled files of a bundle."""
    if not manifest.files.index:
        return ()
    roots, there = {file.root for file in manifest.files.index}, manifest.files.guard
    if _programs(manifest):  # what only the program knows, it compares when it starts
        there = {name: value for name, value in there.items() if name in GUARD}
    return file_mismatches(found.guard, there, roots=roots, device_type=found.environment.device_type)


def _programs(manifest: Manifest) -> frozenset[str]:
    """Give the roots of programs that know facts of their own, such as vLLM."""
    return frozenset(file.root for file in manifest.files.index if file.root in PROGRAMS)


def _program_view(root: str, manifests: Sequence[Manifest]) -> View:
    """Say of the files of a program how the newest differ from the nearest others: of two starts, the later missed."""
    held = sorted((one for one in manifests if root in _programs(one)), key=lambda one: (one.created, one.bundle))
    newest, others = held[-1], [(_own_facts(held[-1], one), one) for one in reversed(held[:-1])]
    facts, nearest = min((one for one in others if one[0]), key=lambda one: len(one[0]), default=((), None))
    return {
        "root": root,
        "bundles": len(held),
        "newest": newest.bundle,
        "nearest": nearest.bundle if nearest else None,
        "mismatches": _plain(facts),
    }


def _own_facts(one: Manifest, other: Manifest) -> Sequence[Mismatch]:
    here, there = one.files.guard, other.files.guard
    names = sorted((here.keys() | there.keys()) - GUARD.keys())
    differing = [name for name in names if here.get(name, "") != there.get(name, "")]
    return [Mismatch(fact=name, here=here.get(name, ""), there=there.get(name, "")) for name in differing]


def _plain(differing: Sequence[Mismatch]) -> list[View]:
    return [{"fact": one.fact, "here": one.here, "there": one.there} for one in differing]


def _print(url: str, found: Here, view: View) -> None:
    for failed in view["failed"]:
        say("[bold yellow]cannot be read:[/] {}: {}", failed["bundle"], failed["message"])
    if view["bundles"]:
        say("{} under {} for {}", counted(view["bundles"], "bundle"), url, found.prefix.path)
    elif view["failed"]:
        say("none of {} under {} for {} can be used", counted(len(view["failed"]), "bundle"), url, found.prefix.path)
    elif not view["others"]:
        say("{}", nothing_under(url))
    else:
        told = "nothing under {} fits {}; the nearest of {} differs in:"
        told = told if view["mismatches"] else "nothing under {} fits {}, and none of {} can be compared"
        say(told, url, found.prefix.path, counted(view["others"], "environment"))
    if view["withdrawn"]:
        say("withdrawn for this machine: {}", counted(view["withdrawn"], "bundle"))
    if view["files_left_out"]:
        say("compiled files of {} would be left out:", counted(len(view["files_left_out"]), "bundle"))
    rows = [_row(one["fact"], one) for one in view["mismatches"]]
    for bundle, facts in view["files_left_out"].items():
        rows += [_row(f"{one['fact']} of {bundle}", one) for one in facts]
    if rows:
        print_table(("FACT", "HERE", "THERE"), rows)
    for program in view["programs"]:
        _print_program(program)


def _print_program(view: View) -> None:
    """Say what keeps one start of a program from using what another one has published."""
    if not view["nearest"]:
        told = "{} with files of {}, which compares its own settings when it starts"
        say(told, counted(view["bundles"], "bundle"), view["root"])
        return
    told = "{} with files of {} for different settings; the newest, {}, differs from the nearest, {}, in:"
    say(told, counted(view["bundles"], "bundle"), view["root"], view["newest"], view["nearest"])
    rows = [tuple(text or "unset" for text in _row(one["fact"], one)) for one in view["mismatches"]]
    print_table(("FACT", "NEWEST", "NEAREST"), rows)


def _row(name: str, differing: View) -> tuple[str, str, str]:
    return name, fact_text(differing["here"]), fact_text(differing["there"])
