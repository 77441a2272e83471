"""`megacache keygen` and `sign`."""

from pathlib import Path

import click

from megacache import _trust
from megacache._catalog import add_signature
from megacache._cli.exit_codes import exit_code_of
from megacache._cli.options import (
    json_option,
    key_option,
    refuse_if_read_only,
    with_destination,
    with_selection,
    with_store,
)
from megacache._cli.output import emit, progress_bar, say
from megacache._cli.selection import Selection, bundle_of, nothing_under, stock_of
from megacache._cli.views import failed_view
from megacache._runtime import Progress, call, counted
from megacache._settings import Settings
from megacache._store import Store
from megacache.errors import BundleError, SettingsError


@click.command("keygen")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
@json_option
def keygen_command(*, file: str, as_json: bool) -> None:
    """Make a pair of keys: FILE to sign with, FILE.pub to trust.

    They are Ed25519 keys. Only you can read FILE.

    \b
    Example:
      megacache keygen ~/.megacache/release.pem
    """  # noqa: D301 - as click wants it
    path = Path(file)
    keyid = _trust.generate_key(path)
    if as_json:
        emit({"private_key": str(path), "public_key": f"{path}.pub", "keyid": keyid}, command="keygen")
    else:
        say("{} signs (keep it secret), {}.pub verifies; key id {}", path, path, keyid)


@click.command("sign")
@with_store(timeout=600)
@click.argument("bundles", metavar="[BUNDLE]...", nargs=-1)
@key_option
@with_destination
@with_selection
@json_option
def sign_command(
    *, store: Store, bundles: tuple[str, ...], key: str | None, selection: Selection, as_json: bool
) -> None:
    """Add a signature to what is published under URL.

    Sign what was tested, and what was copied from elsewhere. The signature is for this place only, or the one that
    --for names: a copy elsewhere does not verify until it is signed there. Without BUNDLE every visible bundle is
    signed. Run `megacache verify` before: a signature says that the manifest is right, and the manifest holds the
    digests of all the rest.

    \b
    Example:
      megacache sign s3://production/flux/v1 --key release.pem
    """  # noqa: D301 - as click wants it
    refuse_if_read_only()
    key = key or Settings.read().signing_key
    if key is None:
        raise SettingsError("no key is named", hint="give --key, or set MEGACACHE_SIGNING_KEY")
    # A key service, or the disk with the file, may not answer.
    signer = call(lambda: _trust.load_signer(key), deadline=store.deadline, doing="loading the signing key")
    chosen = selection.of(stock_of(store), store)
    wanted = [bundle_of(chosen, name, store.url) for name in bundles]
    wanted = wanted or [(holding, bundle) for holding in chosen for bundle in sorted(holding.visible)]
    if not wanted:
        raise SettingsError(nothing_under(store.url), hint="check the URL")
    signed: list[str] = []
    failed: list[tuple[str, BundleError]] = []
    with progress_bar("signing") as progress:
        for done, (holding, bundle) in enumerate(wanted, 1):
            try:
                signed += [bundle] if add_signature(store, holding, bundle, signer) else []
            except BundleError as fault:
                failed.append((bundle, fault))
            progress(Progress(stage="sign", done=done, total=len(wanted)))
    _tell(store, signed, failed, len(wanted), as_json=as_json)
    if failed:
        click.get_current_context().exit(exit_code_of(failed[0][1]))


def _tell(
    store: Store, signed: list[str], failed: list[tuple[str, BundleError]], bundles: int, *, as_json: bool
) -> None:
    if as_json:
        view = {"url": store.url, "scope": store.scope, "signed": signed, "bundles": bundles}
        emit({**view, "failed": failed_view(failed)}, command="sign")
        return
    for bundle, fault in failed:
        say("[bold red]not signed:[/] {}: {}", bundle, fault)
    before = bundles - len(signed) - len(failed)
    say("{} signed for {}, {} had this signature already", counted(len(signed), "bundle"), store.scope, before)
