"""The one door to signatures: securesystemslib, which is imported only where a key is named."""

import json
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

from megacache._bundle import Envelope, Signature, signed_type, tag_of
from megacache._runtime import counted, shown
from megacache._settings import Settings
from megacache._store import without_secrets
from megacache.errors import SettingsError, UntrustedError

KeySource = str | os.PathLike[str]
"""A public key: the path of a PEM file, or of a JSON file as securesystemslib describes keys."""
_FILE = "file2"
_IMPORTABLE = frozenset({"awskms", "gcpkms", "hv"})
"""Schemes of signers that tell their public key when they are asked by its name alone."""
_CLIENT = 'install the client of that service, such as pip install "securesystemslib[awskms]"'


@dataclass(frozen=True, slots=True, kw_only=True)
class Keys:
    """The keys that a caller names; variables name those that it leaves out."""

    trusted: tuple[KeySource, ...] | None = None
    threshold: int | None = None
    sign_with: Any = None

    def policy(self, settings: Settings) -> "TrustPolicy | None":
        """Give the policy of readers; None if neither keys nor a threshold are named."""
        trusted = self.trusted if self.trusted is not None else settings.trusted_keys
        threshold = settings.trust_threshold if self.threshold is None else self.threshold
        if trusted is None and threshold is None:
            return None
        return TrustPolicy.read(trusted or (), 1 if threshold is None else threshold)

    def publishers_policy(self, settings: Settings, signer: Any) -> "TrustPolicy | None":
        """Give the policy for bundles that may cover a writer's own: who signs relies on what is signed."""
        policy = self.policy(settings)
        if policy is None and signer is not None:
            return TrustPolicy(keys=(signer.public_key,), threshold=1)
        return policy

    def signer(self, settings: Settings) -> Any:
        """Give the signer of a writer; None without a signing key."""
        key = self.sign_with or settings.signing_key
        return load_signer(key) if key else None

    def signing(self, settings: Settings) -> "Signing":
        """Load what a writer needs; a key service may have to be asked."""
        signer = self.signer(settings)
        return Signing(
            signer=signer,
            policy=self.publishers_policy(settings, signer),
            objection=_objection(self.policy(settings), signer),
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Signing:
    """How a writer signs, and what it relies on."""

    signer: Any = None
    """None if nothing is signed."""
    policy: "TrustPolicy | None" = None
    """What bundles must satisfy to cover its own."""
    objection: str = ""
    """Why nobody who trusts the same keys would load what it publishes; empty if they would."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TrustPolicy:
    """Whose signatures are needed."""

    keys: tuple[Any, ...]
    """Public keys, as securesystemslib knows them."""
    threshold: int
    """How many of them must have signed."""

    @classmethod
    def read(cls, sources: Iterable[KeySource], threshold: int = 1) -> "TrustPolicy":
        """Read public keys; raise `SettingsError` for a file that is not a key, and for a policy that cannot be met."""
        keys = {key.keyid: key for key in map(read_public_key, sources)}
        with _translated("reading the trusted keys"):
            # One key under two names must not stand for two.
            count = len(set(map(_public_value, keys.values())))
        _check_threshold(threshold, count)
        return cls(keys=tuple(keys.values()), threshold=threshold)

    def tags(self, scope: str, payload: bytes) -> frozenset[str]:
        """Give the tags under which signatures of a payload by the keys for a cache lie."""
        return frozenset(tag_of(key.keyid, scope, payload) for key in self.keys)

    def counts(self, signer: Any) -> bool:
        """Tell whether what a signer signs counts."""
        return any(key.keyid == signer.public_key.keyid for key in self.keys)

    def check(self, envelope: Envelope, scope: str) -> None:
        """Raise `UntrustedError` unless enough of the keys have signed the payload for this cache."""
        valid: set[bytes] = set()
        untold: list[str] = []
        for key, signature in product(self.keys, envelope.signatures):
            if signature.keyid == key.keyid and signature.scope == scope:
                try:
                    if _is_valid(key, signature, envelope.payload):
                        valid.add(_public_value(key))
                except _UnknownError as error:  # the other signatures may be enough
                    untold.append(shown(without_secrets(str(error))))
        if len(valid) < self.threshold:
            msg = f"{counted(len(valid), 'valid signature')} for {scope}, {self.threshold} needed"
            hint = f"could not be verified: {untold[0]}" if untold else ""
            raise UntrustedError(msg, hint=hint or _why(envelope, {key.keyid for key in self.keys}, scope))


def read_public_key(source: KeySource) -> Any:
    """Read a public key from a file, PEM or JSON."""
    with _translated(f"reading the public key {source}"):
        from cryptography.hazmat.primitives.serialization import load_pem_public_key

        data = Path(source).read_bytes()
        if data.lstrip().startswith(b"{"):
            document = json.loads(data)
            return _library().Key.from_dict(document.pop("keyid"), document)
        return _library().SSlibKey.from_crypto(load_pem_public_key(data))


def load_signer(key: Any) -> Any:
    """Give the signer that a path or a URI names; a signer of securesystemslib's is one already.

    A path is that of a PEM file with a private key. `awskms:`, `gcpkms:` and `hv:` name a key in a service. Any URI of
    securesystemslib's may name the file of its public key after `#`; those that do not tell it by themselves must, such
    as Azure's and Sigstore's.
    """
    with _translated("loading the signing key"):
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        library = _library()
        if isinstance(key, library.Signer):
            return key
        name = os.fspath(key)
        # An error would show what is taken for a path.
        if "-----BEGIN" in name:
            raise SettingsError("the signing key is given by its content", hint="give the path of its file")
        scheme, colon, rest = name.partition(":")
        uri, _, public = name.partition("#")
        if public and scheme in library.SIGNER_FOR_URI_SCHEME:
            return library.Signer.from_priv_key_uri(uri, read_public_key(public))
        if not colon or scheme == _FILE or scheme not in library.SIGNER_FOR_URI_SCHEME:
            path = rest if scheme == _FILE else name
            return library.CryptoSigner(load_pem_private_key(Path(path).read_bytes(), None))
        if scheme not in _IMPORTABLE:
            msg = f"{scheme}: keys cannot be named by a URI alone"
            raise SettingsError(msg, hint=f"name the file of its public key as well: {name}#key.json")
        uri, public_key = library.SIGNER_FOR_URI_SCHEME[scheme].import_(rest)
        return library.Signer.from_priv_key_uri(uri, public_key)


def sign(signer: Any, payload: bytes, scope: str) -> Signature:
    """Sign a payload for a cache."""
    with _translated("signing"):
        from securesystemslib.dsse import Envelope as Dsse

        made = Dsse(payload, signed_type(scope), {}).sign(signer)
        details = json.dumps(made.unrecognized_fields).encode() if made.unrecognized_fields else b""
        return Signature(keyid=made.keyid, scope=scope, sig=bytes.fromhex(made.signature), details=details)


def generate_key(path: Path) -> str:
    """Make an Ed25519 key pair: the private key at a path, readable by its owner alone, the public one beside it.

    Returns the id of the key; the public key's file has the ending `.pub`. Raises `SettingsError` if one is there.
    """
    with _translated("making a key"):
        from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

        public = path.with_name(f"{path.name}.pub")
        if taken := [one for one in (path, public) if one.exists()]:
            raise SettingsError(f"{taken[0]} exists", hint="choose another name; a key is never overwritten")
        signer = _library().CryptoSigner.generate_ed25519()
        for target, mode, content in (
            (path, 0o600, signer.private_bytes),
            (
                public,
                0o644,
                signer.public_key._crypto_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo),
            ),
        ):
            # Made with its mode and not changed later: nobody else can open the private key in between.
            descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        return str(signer.public_key.keyid)


def _objection(policy: TrustPolicy | None, signer: Any) -> str:
    if policy is None or (signer is not None and policy.counts(signer)):
        return ""
    fault = "no key signs it" if signer is None else "the signing key is not one of the trusted keys"
    return (
        f"readers that trust these keys would refuse this publication: {fault}; set MEGACACHE_SIGNING_KEY to a trusted "
        "key, or unset MEGACACHE_TRUSTED_KEYS here if somebody signs it later"
    )


def _library() -> Any:
    from securesystemslib import signer as library

    signer: Any = library
    # The library does not register these two by itself, because their format may change.
    signer.SIGNER_FOR_URI_SCHEME.setdefault(signer.SigstoreSigner.SCHEME, signer.SigstoreSigner)
    signer.KEY_FOR_TYPE_AND_SCHEME.setdefault(
        (signer.SigstoreKey.DEFAULT_KEY_TYPE, signer.SigstoreKey.DEFAULT_SCHEME), signer.SigstoreKey
    )
    return signer


class _UnknownError(Exception):
    """A signature may be right or wrong: what is needed to tell is not there."""


def _is_valid(key: Any, signature: Signature, payload: bytes) -> bool:
    from securesystemslib.dsse import Envelope as Dsse
    from securesystemslib.exceptions import VerificationError

    try:
        fields = json.loads(signature.details) if signature.details else {}
        made = _library().Signature(signature.keyid, signature.sig.hex(), fields)
        key.verify_signature(made, Dsse(payload, signed_type(signature.scope), {}).pae())
    except VerificationError as error:
        # The library could not tell: of a signature that is wrong, it says `UnverifiedSignatureError`.
        cause = error.__cause__
        raise _UnknownError(f"{error}: {type(cause).__name__}: {cause}" if cause else str(error)) from error
    except Exception:  # noqa: BLE001 - a signature on which the library fails is not valid
        return False
    return True


def _check_threshold(threshold: int, keys: int) -> None:
    if not keys:
        hint = "name the file of a public key, or leave out both the keys and the threshold to trust everyone"
        raise SettingsError("no trusted key is named", hint=hint)
    if threshold < 1:
        raise SettingsError(f"the trust threshold is {threshold}", hint="let at least 1 key sign")
    if threshold > keys:
        msg = f"{threshold} keys must sign, but only {keys} {'is' if keys == 1 else 'are'} trusted"
        raise SettingsError(msg, hint=f"trust more keys, each named once, or lower the threshold to {keys}")


def _public_value(key: Any) -> bytes:
    """Give what makes two keys the same, under any id and in any format."""
    # A key of Sigstore's is an identity, and has no bytes.
    if not hasattr(key, "_crypto_key"):
        return json.dumps([key.keytype, key.keyval], sort_keys=True).encode()
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    value: bytes = key._crypto_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return value


def _why(envelope: Envelope, trusted: set[str], scope: str) -> str:
    known = [signature for signature in envelope.signatures if signature.keyid in trusted]
    if not known:
        return "none of the trusted keys has signed it: publish with one, or run `megacache sign`"
    if all(signature.scope != scope for signature in known):
        return f"it is signed for {shown(known[0].scope)}, and may have been copied from there: run `megacache sign`"
    return "find out who changed it"


@contextmanager
def _translated(doing: str) -> Iterator[None]:
    """Let no foreign exception out; what is secret is in none of them."""
    try:
        yield
    except SettingsError:
        raise
    except ImportError as error:
        raise SettingsError(
            f"{doing} failed: {without_secrets(str(error))}", hint='pip install "megacache[signing]"'
        ) from error
    except Exception as error:
        text = error.strerror if isinstance(error, OSError) else without_secrets(str(error))[:200]
        msg = f"{doing} failed: {type(error).__name__}: {text}"
        # The library raises it where the client of a key service is not installed.
        lacking = type(error).__name__ == "UnsupportedLibraryError"
        raise SettingsError(msg, hint=_CLIENT if lacking else "check the file or URI that names the key") from error
