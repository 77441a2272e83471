"""Add a signature to a bundle that is published already."""

from dataclasses import replace
from typing import Any

from megacache._bundle import MAX_SIGNATURE_SIZE, Envelope, open_envelope, pack_signatures, parse_signatures
from megacache._catalog.catalog import Catalog
from megacache._catalog.inventory import Holding
from megacache._store import Store
from megacache._trust import TrustPolicy
from megacache.errors import BundleError, UntrustedError


def add_signature(store: Store, holding: Holding, bundle: str, signer: Any) -> bool:
    """Put a signature beside a manifest; False if this key has signed it before."""
    catalog = Catalog(store, holding.prefix)
    envelope = open_envelope(catalog.read_sealed(bundle, holding.manifests[bundle]))
    signature = catalog.sign(signer, envelope.payload)
    key = holding.prefix.signature(bundle, signature.tag(envelope.payload))
    if store.create(key, pack_signatures([signature])):
        return True
    _check_present(store, key, envelope, TrustPolicy(keys=(signer.public_key,), threshold=1))
    return False


def _check_present(store: Store, key: str, envelope: Envelope, policy: TrustPolicy) -> None:
    """Raise `UntrustedError` unless what lies where a signature belongs is that signature."""
    try:
        found = parse_signatures(store.read(key, size=MAX_SIGNATURE_SIZE))
        policy.check(replace(envelope, signatures=found), store.scope)
    except BundleError as error:
        msg = f"{key} exists, and is not the signature of this key"
        raise UntrustedError(msg, hint=f"delete it from {store.url}, and sign again") from error
