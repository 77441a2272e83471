"""The signed wrapper around a manifest: the DSSE envelope, written as msgpack.

https://github.com/secure-systems-lab/dsse says how a signature is made: over the payload and its type. Each signature
here has a scope as well, the cache that it was made for, which is signed with the type: what was signed for one cache
is not signed for another.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from megacache._bundle.digest import Digest
from megacache._bundle.document import Node, pack
from megacache.errors import FormatError, UnsupportedFormatError

PAYLOAD_TYPE = "application/vnd.megacache.manifest.v1+msgpack"
MAX_SIGNATURE_SIZE = 1 << 20
"""Bytes; a larger object at a signature's name is not read."""
MAX_SIGNATURES = 64
"""In one envelope, or in one object of signatures."""

_MAX_SIG = 16 << 10
_MAX_DETAILS = 256 << 10
_MAX_VALUES = 4_096


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """One signature, not verified yet."""

    keyid: str
    """What the signing library calls the key."""
    scope: str
    """The cache that it was made for: its URL."""
    sig: bytes
    details: bytes = b""
    """What a signer adds to a plain signature, such as Sigstore's bundle, as JSON."""

    def tag(self, payload: bytes) -> str:
        """Name the key, the cache and what was signed in the names of objects: 16 hex digits."""
        return tag_of(self.keyid, self.scope, payload)


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """A payload and the signatures that came with it."""

    payload: bytes = field(repr=False)
    signatures: tuple[Signature, ...] = ()

    def pack(self) -> bytes:
        """Write it."""
        signatures = [_document(signature) for signature in self.signatures]
        return pack({"payloadType": PAYLOAD_TYPE, "payload": self.payload, "signatures": signatures})


def open_envelope(data: bytes) -> Envelope:
    """Read an envelope, and nothing of what is in it; raise `FormatError` where it is not what it should be."""
    envelope = Node.unpack(data, "envelope", values=_MAX_VALUES)
    payload_type = envelope.field("payloadType")
    if payload_type.text() != PAYLOAD_TYPE:
        raise _refusal(payload_type)
    return Envelope(
        payload=envelope.field("payload").data(),
        signatures=tuple(map(_parse, envelope.field("signatures").items(most=MAX_SIGNATURES))),
    )


def signed_type(scope: str) -> str:
    """Give the payload type that is signed: with the cache that the signature is for."""
    return f"{PAYLOAD_TYPE};scope={scope}"


def pack_signatures(signatures: Iterable[Signature]) -> bytes:
    """Write signatures as an object of their own, for a manifest that is in a store already."""
    return pack([_document(signature) for signature in signatures])


def parse_signatures(data: bytes) -> tuple[Signature, ...]:
    """Read an object of signatures."""
    return tuple(map(_parse, Node.unpack(data, "signatures", values=_MAX_VALUES).items(most=MAX_SIGNATURES)))


def tag_of(keyid: str, scope: str, payload: bytes) -> str:
    """Name a key, the cache that it signs for and what it signs in the names of objects.

    A signature for another cache, or for an earlier manifest, thus has another name.
    """
    return Digest.of(f"{keyid}\n{scope}\n{Digest.of(payload)}".encode(errors="replace")).hex[:16]


def _document(signature: Signature) -> dict[str, object]:
    return {
        "keyid": signature.keyid,
        "scope": signature.scope,
        "sig": signature.sig,
        "details": signature.details,
    }


def _parse(node: Node) -> Signature:
    scope, details = node.optional("scope"), node.optional("details")
    return Signature(
        keyid=node.field("keyid").text(),
        scope=scope.text() if scope else "",
        sig=node.field("sig").data(most=_MAX_SIG),
        details=details.data(most=_MAX_DETAILS) if details else b"",
    )


def _refusal(payload_type: Node) -> FormatError:
    if re.fullmatch(r"application/vnd\.megacache\.manifest\.v\d+\+msgpack", payload_type.text()):
        msg = f"{payload_type.text()!r} is of another major version"
        return UnsupportedFormatError(msg, path=payload_type.path, hint="upgrade megacache")
    return payload_type.wrong(PAYLOAD_TYPE)
