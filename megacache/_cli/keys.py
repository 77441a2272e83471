"""`megacache keygen` and `sign`."""

from pathlib import Path

import click

from megacache import _trust
from megacache._catalog import Catalog
from megacache._cli._options import json_option, refuse_if_read_only, with_destination, with_selection, with_store
from megacache._cli._output import emit, progress_bar, say
from megacache._cli._selection import Selection, bundle_of, nothing_under, stock_of
from megacache._envelope import open_envelope, pack_signatures
from megacache._inventory import Holding
from megacache._results import Progress
from megacache._settings import Settings
from megacache._store import Store
from megacache._wording import counted
from megacache.errors import SettingsError


@click.command("keygen")
@click.argument("file", metavar="FILE", type=click.Path(dir_okay=False))
@json_option
def keygen_command(*, file: str, as_json: bool) -> None:
    """Make an Ed25519 key pair: FILE to sign with, which only you can read, and FILE.pub to trust.

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
@click.option("--key", metavar="KEY", help="File or URI of the private key; MEGACACHE_SIGNING_KEY if left out.")
@with_destination
@with_selection
@json_option
def sign_command(
    *, store: Store, bundles: tuple[str, ...], key: str | None, selection: Selection, as_json: bool
) -> None:
    """Add a signature to what is published under URL, such as what was tested and copied there.

    The signature is for this place only, or the one that --for names: a copy elsewhere does not verify until it is
    signed there. Without BUNDLE every visible bundle is signed. Run `megacache verify` before: a signature says that
    the manifest is right, and the manifest holds the digests of all the rest.

    \b
    Example:
      megacache sign s3://production/flux/v1 --key release.pem
    """  # noqa: D301 - as click wants it
    refuse_if_read_only()
    key = key or Settings.read().signing_key
    if key is None:
        raise SettingsError("no key is named", hint="give --key, or set MEGACACHE_SIGNING_KEY")
    signer = _trust.load_signer(key)
    chosen = selection.of(stock_of(store), store)
    wanted = [bundle_of(chosen, name, store.url) for name in bundles]
    wanted = wanted or [(holding, bundle) for holding in chosen for bundle in sorted(holding.visible)]
    if not wanted:
        raise SettingsError(nothing_under(store.url), hint="check the URL")
    signed = []
    with progress_bar("signing") as progress:
        for done, (holding, bundle) in enumerate(wanted, 1):
            signed += [bundle] if _add(store, holding, bundle, signer) else []
            progress(Progress(stage="sign", done=done, total=len(wanted)))
    if as_json:
        emit({"url": store.url, "scope": store.scope, "signed": signed, "bundles": len(wanted)}, command="sign")
    else:
        say(
            "{} signed for {}, {} had this signature",
            counted(len(signed), "bundle"),
            store.scope,
            len(wanted) - len(signed),
        )


def _add(store: Store, holding: Holding, bundle: str, signer: object) -> bool:
    """Put a signature beside a manifest; False if this key has signed it before."""
    sealed = Catalog(store, holding.prefix).read_sealed(bundle, holding.manifests[bundle])
    signature = _trust.sign(signer, open_envelope(sealed).payload, store.scope)
    return store.create(holding.prefix.signature(bundle, signature.tag), pack_signatures([signature]))
