"""`megacache cp`, `push` and `pull`: bundles between two URLs."""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from megacache._cli._app import exit_code_of
from megacache._cli._options import (
    json_option,
    open_store,
    storage_options,
    timeout_option,
    url_argument,
    with_selection,
)
from megacache._cli._output import emit, progress_bar, say, size_text
from megacache._cli._selection import Selection
from megacache._cli._views import View
from megacache._explanation import counted
from megacache._inventory import Inventory
from megacache._settings import default_url
from megacache._store import Store
from megacache._transfer import Selected, Transfer, Transferred
from megacache.errors import SettingsError

Command = TypeVar("Command", bound=Callable[..., Any])
Options = Mapping[str, Any] | None
_DAY = 86_400


def _transfer_options(command: Command) -> Command:
    """Give the three commands the same options."""
    for option in (
        timeout_option(_DAY),
        storage_options("--target-options", "the target"),
        storage_options("--source-options", "the source"),
        json_option,
        click.option("--dry-run", is_flag=True, help="Only say what would be copied."),
        with_selection,
    ):
        command = option(command)
    return command


@click.command("cp")
@click.argument("source", metavar="SOURCE")
@click.argument("target", metavar="TARGET")
@_transfer_options
def cp_command(*, source: str, target: str, **options: Any) -> None:
    """Copy a cache, or some environments of it, between any two URLs.

    Every chunk is compared with its digest on the way. What TARGET holds already is not copied again, so that a run
    which was cut short is taken up by running it again. Withdrawn bundles are not copied.

    \b
    Example:
      megacache cp s3://staging/flux/v1 gs://production/flux/v1
    """  # noqa: D301 - as click wants it
    _copy(source, target, **options)


@click.command("push")
@url_argument
@click.option("--from", "source", metavar="URL", help="Where the bundles are; the default store if left out.")
@_transfer_options
def push_command(*, url: str, source: str | None, **options: Any) -> None:
    """Copy the bundles of a local store to URL.

    \b
    Example:
      megacache push s3://bucket/flux/v1 --from /var/cache/flux
    """  # noqa: D301 - as click wants it
    _copy(source or default_url(), url, **options)


@click.command("pull")
@url_argument
@click.option("--to", "target", metavar="URL", help="Where to put the bundles; the default store if left out.")
@_transfer_options
def pull_command(*, url: str, target: str | None, **options: Any) -> None:
    """Copy the bundles under URL to a local store, such as a folder that is baked into an image.

    \b
    Example:
      megacache pull s3://bucket/flux/v1 --to /opt/flux-cache --device nvidia-h100-80gb-hbm3
    """  # noqa: D301 - as click wants it
    _copy(url, target or default_url(), **options)


def _copy(
    source: str,
    target: str,
    *,
    selection: Selection,
    dry_run: bool,
    as_json: bool,
    source_options: Options,
    target_options: Options,
    timeout: float,
) -> None:
    here, there = open_store(source, source_options, timeout), open_store(target, target_options, timeout)
    if here.url == there.url and source_options == target_options:
        raise SettingsError(f"{here.url} is source and target", hint="give two places")
    chosen = selection.of(Inventory.of(here), here.url)
    selected = [Selected(holding=one, bundles=tuple(sorted(one.visible))) for one in chosen]
    if not any(one.bundles for one in selected):
        raise SettingsError(f"nothing is published under {here.url}", hint="check the URL")
    if dry_run:
        _announce(selected, here, there, as_json=as_json)
        return
    with progress_bar("copying") as progress:
        done = Transfer(here, there, progress).run(selected)
    if as_json:
        emit({"source": here.url, "target": there.url, "dry_run": False, **_view(done)}, command="cp")
    else:
        _print(done, there)
    if done.failed:
        click.get_current_context().exit(exit_code_of(done.failed[0][1]))


def _announce(selected: list[Selected], source: Store, target: Store, *, as_json: bool) -> None:
    bundles = [bundle for one in selected for bundle in one.bundles]
    size = sum(one.holding.size for one in selected)
    if as_json:
        document = {"source": source.url, "target": target.url, "dry_run": True, "bundles": bundles, "bytes": size}
        emit(document, command="cp")
    else:
        what = counted(len(bundles), "bundle"), counted(len(selected), "environment"), size_text(size)
        say("would copy {} of {}, {} at most, from {} to {}", *what, source.url, target.url)


def _view(done: Transferred) -> View:
    return {
        "copied": list(done.copied),
        "present": list(done.present),
        "failed": [
            {"bundle": bundle, "kind": type(fault).__name__, "message": str(fault)} for bundle, fault in done.failed
        ],
        "chunks": done.chunks,
        "bytes": done.bytes_stored,
    }


def _print(done: Transferred, target: Store) -> None:
    for bundle, fault in done.failed:
        say("[bold red]not copied:[/] {}: {}", bundle, fault)
    moved = counted(done.chunks, "chunk"), size_text(done.bytes_stored)
    say(
        "{} copied to {}, {} there already; {}, {}",
        counted(len(done.copied), "bundle"),
        target.url,
        len(done.present),
        *moved,
    )
