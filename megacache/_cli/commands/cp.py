"""`megacache cp`, `push` and `pull`: bundles between two URLs."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from megacache._catalog import Selected, Transfer, Transferred
from megacache._cli.exit_codes import exit_code_of
from megacache._cli.options import (
    json_option,
    open_store,
    refuse_if_read_only,
    storage_options,
    timeout_option,
    url_argument,
    with_policy,
    with_selection,
)
from megacache._cli.output import emit, progress_bar, say, size_text
from megacache._cli.selection import Selection, nothing_under, stock_of
from megacache._cli.views import View, failed_view
from megacache._runtime import counted
from megacache._settings import default_url
from megacache._store import Store
from megacache._trust import TrustPolicy
from megacache.errors import SettingsError

Command = TypeVar("Command", bound=Callable[..., Any])
Options = Mapping[str, Any] | None
_DAY = 86_400
_DONE = "{} copied to {}, {} there already; {}, {}"


def _transfer_options(command: Command) -> Command:
    # As with decorators, the option that is added last comes first in the help.
    for option in (
        timeout_option(_DAY),
        json_option,
        click.option("--dry-run", is_flag=True, help="Only say what would be copied."),
        with_policy,
        with_selection,
    ):
        command = option(command)
    return command


@click.command("cp")
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@storage_options("--source-options", "the source")
@storage_options("--target-options", "the target")
@_transfer_options
def cp_command(*, source: str, target: str, **options: Any) -> None:
    """Copy a cache, or some environments of it.

    SOURCE and TARGET are any two URLs. Every chunk is compared with its digest on the way. What TARGET already holds is
    not copied again: if a run is cut short, run it again. Withdrawn bundles are not copied. With trusted keys, only
    bundles that they have signed for SOURCE are copied.

    \b
    Example:
      megacache cp s3://staging/flux/v1 gs://production/flux/v1
    """  # noqa: D301 - as click wants it
    if not options["dry_run"]:
        refuse_if_read_only()
    _copy(source, target, **options)


@click.command("push")
@url_argument
@click.option(
    "--from", "source", metavar="PLACE", help="Where the bundles are; by default the store in your cache folder."
)
@storage_options(whose="URL")
@_transfer_options
def push_command(*, url: str, source: str | None, storage_options: Options, **options: Any) -> None:
    """Copy the bundles of a local store to URL.

    It is `megacache cp` from the store in your cache folder, or from another place.

    \b
    Example:
      megacache push s3://bucket/flux/v1 --from /var/cache/flux
    """  # noqa: D301 - as click wants it
    if not options["dry_run"]:
        refuse_if_read_only()
    _copy(default_url() if source is None else source, url, target_options=storage_options, **options)


@click.command("pull")
@url_argument
@click.option(
    "--to", "target", metavar="PLACE", help="Where to put the bundles; by default the store in your cache folder."
)
@storage_options(whose="URL")
@_transfer_options
def pull_command(*, url: str, target: str | None, storage_options: Options, **options: Any) -> None:
    """Copy the bundles under URL to a local store.

    It is `megacache cp` to the store in your cache folder, or to another place, such as a folder that is baked into an
    image.

    \b
    Example:
      megacache pull s3://bucket/flux/v1 --to /opt/flux-cache --device nvidia-h100-80gb-hbm3
    """  # noqa: D301 - as click wants it
    _copy(url, default_url() if target is None else target, source_options=storage_options, **options)


def _copy(
    source: str,
    target: str,
    *,
    selection: Selection,
    policy: TrustPolicy | None,
    dry_run: bool,
    as_json: bool,
    timeout: float,
    source_options: Options = None,
    target_options: Options = None,
) -> None:
    here, there = open_store(source, source_options, timeout), open_store(target, target_options, timeout)
    # With other options, the same URL may be at another endpoint.
    if here.scope == there.scope and source_options == target_options:
        raise SettingsError(f"source and target are the same place, {here.scope}", hint="name another for one of them")
    chosen = selection.of(stock_of(here), here)
    selected = [Selected(holding=one, bundles=tuple(sorted(one.visible))) for one in chosen]
    if not any(one.bundles for one in selected):
        raise SettingsError(nothing_under(here.url), hint="check the URL")
    done = _run(here, there, selected, policy, dry_run=dry_run)
    if as_json:
        command = click.get_current_context().info_name or "cp"
        emit({"source": here.url, "target": there.url, "dry_run": dry_run, **_view(done)}, command=command)
    else:
        _print(done, there, dry_run=dry_run)
    if done.failed:
        click.get_current_context().exit(exit_code_of(done.failed[0][1]))


def _run(
    here: Store, there: Store, selected: list[Selected], policy: TrustPolicy | None, *, dry_run: bool
) -> Transferred:
    with progress_bar("copying") as progress:
        transfer = Transfer(here, there, progress, policy)
        return transfer.outlook(selected) if dry_run else transfer.run(selected)


def _view(done: Transferred) -> View:
    return {
        "copied": list(done.copied),
        "present": list(done.present),
        "failed": failed_view(done.failed),
        "chunks": done.chunks,
        "bytes": done.bytes_stored,
    }


def _print(done: Transferred, target: Store, *, dry_run: bool) -> None:
    for bundle, fault in done.failed:
        say("[bold red]not copied:[/] {}: {}", bundle, fault)
    told = "{} would be copied to {}, {} there already; {}, {} at most" if dry_run else _DONE
    moved = counted(done.chunks, "chunk"), size_text(done.bytes_stored)
    say(told, counted(len(done.copied), "bundle"), target.url, len(done.present), *moved)
