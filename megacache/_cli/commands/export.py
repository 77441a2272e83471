"""`megacache export` and `import`: PyTorch's plain blob, out and in."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from megacache._cache import Cache, PublishResult
from megacache._catalog import Exported, export_blob
from megacache._cli.exit_codes import exit_code_of
from megacache._cli.machine import need_torch
from megacache._cli.options import (
    chosen_url,
    json_option,
    refuse_if_read_only,
    storage_options,
    timeout_option,
    url_argument,
    with_selection,
    with_store,
)
from megacache._cli.output import emit, progress_bar, say, size_text
from megacache._cli.selection import Selection, stock_of, the_only
from megacache._cli.target import check_folder, write_file
from megacache._cli.views import View, counts_text, failed_view, place_view
from megacache._runtime import counted
from megacache._settings import Settings
from megacache._store import Store
from megacache._trust import Keys
from megacache.errors import BundleError, SettingsError


@click.command("export")
@with_store(timeout=3600)
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
@with_selection
@json_option
def export_command(*, store: Store, file: str, selection: Selection, as_json: bool) -> None:
    """Write the artifacts of one environment into one file.

    With --mine, all artifacts are written that this machine would load.

    torch.compiler.load_cache_artifacts reads the file. One that is there already is replaced. Compiled files are not in
    it, for PyTorch's format has no place for them. If a bundle cannot be used, the file holds the others, and the exit
    code tells.

    \b
    Example:
      megacache export s3://bucket/flux/v1 flux.bin --mine
    """  # noqa: D301 - as click wants it
    check_folder(file)  # before anything is downloaded
    chosen = selection.of(stock_of(store), store)
    holdings = chosen if selection.mine and chosen else (the_only(chosen, store.url),)
    with progress_bar("downloading") as progress:
        done = export_blob(store, holdings, progress, Keys().policy(Settings.read()))
    for bundle, fault in done.failed:
        say("[bold yellow]left out:[/] {}: {}", bundle, fault)
    if not done.artifacts:
        raise BundleError(f"{store.url} holds no artifact of {holdings[0].prefix.path} that can be used")
    # Written last: without an artifact, a file that is there stays as it is.
    write_file(file, done.blob)
    if as_json:
        place = place_view(holdings[0].prefix)
        emit({"url": store.url, "file": file, **place, **_view(done)}, command="export")
    else:
        say("{} written: {}, {}", file, counts_text(done.artifacts), size_text(len(done.blob)))
        if done.files:
            say("{} left out: a blob cannot hold compiled files", counted(done.files, "compiled file"))
    if done.failed:
        click.get_current_context().exit(exit_code_of(done.failed[0][1]))


def _view(done: Exported) -> View:
    return {
        "bytes": len(done.blob),
        "artifacts": dict(done.artifacts),
        "bundles": list(done.bundles),
        "failed": failed_view(done.failed),
        "files_left_out": done.files,
    }


@click.command("import")
@url_argument
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False))
@click.option("--label", "labels", multiple=True, metavar="NAME=VALUE", help="A word of your own for the manifest.")
@json_option
@storage_options()
@timeout_option(3600)
def import_command(
    *,
    url: str,
    file: str,
    labels: tuple[str, ...],
    as_json: bool,
    storage_options: Mapping[str, Any] | None,
    timeout: float,
) -> None:
    """Publish a file that PyTorch saved, for this machine.

    FILE is what torch.compiler.save_cache_artifacts returned. It does not say where it was compiled: import it on a
    machine like the one that saved it. Needs PyTorch. Loading a cache runs code: import only files that you trust.

    \b
    Example:
      megacache import s3://bucket/flux/v1 flux.bin --label commit=4d16e21
    """  # noqa: D301 - as click wants it
    need_torch()
    refuse_if_read_only()
    with progress_bar("uploading") as progress:
        cache = Cache(chosen_url(url), storage_options=storage_options, progress=progress)
        result = cache.import_blob(Path(file).read_bytes(), timeout=timeout, labels=_parsed(labels))
    if as_json:
        emit(_import_view(result), command="import")
    else:
        for warning in result.warnings:
            say("[bold yellow]warning:[/] {}", warning)
        say("{}: {}", result.url, result)
    result.raise_for_status()


def _import_view(result: PublishResult) -> View:
    return {
        "url": result.url,
        "status": result.status.value,
        "reason": result.reason,
        "bundle": result.bundles[0] if result.bundles else None,
        "artifacts": dict(result.artifacts),
        "bytes_stored": result.bytes_stored,
        "warnings": list(result.warnings),
    }


def _parsed(labels: tuple[str, ...]) -> Mapping[str, str]:
    pairs = [label.partition("=") for label in labels]
    if wrong := [name for name, equals, _ in pairs if not name or not equals]:
        raise SettingsError(f"label {wrong[0]!r} has no value", hint="write NAME=VALUE")
    return {name: value for name, _, value in pairs}
