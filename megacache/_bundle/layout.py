"""The names of things in a store.

<device slug>/<fingerprint>/bundles/<bundle id>.msgpack     a manifest: the bundle exists when its manifest does
<device slug>/<fingerprint>/bundles/<bundle id>.<mark>      withdraws it from readers, or keeps it
<device slug>/<fingerprint>/bundles/<bundle id>.<tag>.sig  a signature that was added later, by its tag
<device slug>/<fingerprint>/bundles/lease.<number>.<beat>   somebody compiles or publishes; of use for seconds
<device slug>/<fingerprint>/chunks/<sha256>.zst             a compressed chunk, named by the digest of its stored bytes
"""

import re
from collections.abc import Container, Iterable
from dataclasses import dataclass

from megacache._bundle.digest import Digest

QUARANTINED = "quarantined"
"""The mark of a bundle that is out of service."""
SUPERSEDED = "superseded"
"""The mark of a bundle that others have taken the place of, or that nobody wants any more."""
PINNED = "pinned"
"""The mark of a bundle that is to stay, and in service whatever supersedes it."""
COPIED = "copied"
"""The mark of a bundle that a warm start has copied from another place: it counts as long as it is there."""

_MANIFEST = "msgpack"
_BUNDLE = re.compile(r"(?P<id>[0-9a-f]{32})\.(?P<ending>[a-z]+)")
_PLACE = re.compile(r"(?P<environment>[a-z0-9-]+/[0-9a-f]{16})/(?P<folder>bundles|chunks)/(?P<name>[^/]+)")
_SIGNATURE = re.compile(r"(?P<id>[0-9a-f]{32})\.(?P<tag>[0-9a-f]{16})\.sig")
_LEASE = re.compile(r"lease\.(?P<number>\d{1,9})\.(?P<beat>\d{1,9})")
_CHUNK = re.compile(r"(?P<digest>[0-9a-f]{64})\.zst")


def slug(device: str) -> str:
    """Turn a device name into a folder name: `NVIDIA H100 80GB HBM3` becomes `nvidia-h100-80gb-hbm3`."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unknown"


def manifest_name(bundle: str) -> str:
    """Name a manifest within `bundles/`."""
    return f"{bundle}.{_MANIFEST}"


@dataclass(frozen=True, slots=True, order=True)
class LeaseName:
    """One beat of a lease; the greatest is the newest."""

    number: int
    """Leases are numbered from 1: who takes over from a holder that died takes the next."""
    beat: int
    """0 when it is taken; its holder counts up for as long as it lives."""


@dataclass(frozen=True, slots=True)
class EnvironmentPrefix:
    """Where the bundles of one environment lie."""

    path: str
    """`<device slug>/<fingerprint>`"""

    @property
    def device(self) -> str:
        """The device slug."""
        return self.path.partition("/")[0]

    @property
    def fingerprint(self) -> str:
        """The fingerprint of the environment."""
        return self.path.partition("/")[2]

    @property
    def bundles(self) -> str:
        """The folder of manifests and marks."""
        return f"{self.path}/bundles"

    def manifest(self, bundle: str) -> str:
        """Name a manifest."""
        return f"{self.bundles}/{manifest_name(bundle)}"

    def mark(self, bundle: str, mark: str) -> str:
        """Name a mark."""
        return f"{self.bundles}/{bundle}.{mark}"

    def signature(self, bundle: str, tag: str) -> str:
        """Name a signature that was added later."""
        return f"{self.bundles}/{bundle}.{tag}.sig"

    def lease(self, lease: "LeaseName") -> str:
        """Name one beat of a lease."""
        return f"{self.bundles}/lease.{lease.number}.{lease.beat}"

    def chunk(self, digest: Digest) -> str:
        """Name a chunk."""
        return f"{self.path}/chunks/{digest.hex}.zst"


def environment_prefix(device: str, fingerprint: str) -> EnvironmentPrefix:
    """Say where an environment's bundles lie."""
    return EnvironmentPrefix(f"{slug(device)}/{fingerprint}")


def is_withdrawn(marks: Container[str]) -> bool:
    """Tell whether marks hide their bundle from readers."""
    return QUARANTINED in marks or (SUPERSEDED in marks and PINNED not in marks)


def split_listing(names: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Sort the ids in a listing of `bundles/` into visible and withdrawn; names of another form mean nothing."""
    endings: dict[str, set[str]] = {}
    for name in names:
        if match := _BUNDLE.fullmatch(name):
            endings.setdefault(match["id"], set()).add(match["ending"])
    withdrawn = frozenset(bundle for bundle, found in endings.items() if is_withdrawn(found))
    return frozenset(bundle for bundle, found in endings.items() if _MANIFEST in found) - withdrawn, withdrawn


def marked(names: Iterable[str], mark: str) -> frozenset[str]:
    """Give the ids in a listing of `bundles/` that have a mark."""
    found = (match for name in names if (match := _BUNDLE.fullmatch(name)))
    return frozenset(match["id"] for match in found if match["ending"] == mark)


def signature_of(name: str) -> tuple[str, str] | None:
    """Read a name in `bundles/`: bundle and tag if it is that of a signature."""
    match = _SIGNATURE.fullmatch(name)
    return (match["id"], match["tag"]) if match else None


def lease_of(name: str) -> LeaseName | None:
    """Read a name in `bundles/`: a beat if it is that of a lease."""
    match = _LEASE.fullmatch(name)
    return LeaseName(number=int(match["number"]), beat=int(match["beat"])) if match else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Placed:
    """What the key of an object says of it; one of the five is set."""

    prefix: EnvironmentPrefix
    manifest: str = ""
    """Id of the bundle whose manifest it is."""
    mark: tuple[str, str] | None = None
    """Id of the bundle that it marks, and the mark."""
    signature: tuple[str, str] | None = None
    """Id of the bundle that it signs, and its tag."""
    chunk: Digest | None = None
    lease: LeaseName | None = None


def place(key: str) -> Placed | None:
    """Read a key of a whole cache; None for one that megacache does not write."""
    match = _PLACE.fullmatch(key)
    if match is None:
        return None
    prefix, name = EnvironmentPrefix(match["environment"]), match["name"]
    if match["folder"] == "chunks":
        chunk = _CHUNK.fullmatch(name)
        return Placed(prefix=prefix, chunk=Digest(chunk["digest"])) if chunk else None
    return _in_bundles(prefix, name)


def _in_bundles(prefix: EnvironmentPrefix, name: str) -> Placed | None:
    if signature := signature_of(name):
        return Placed(prefix=prefix, signature=signature)
    if lease := lease_of(name):
        return Placed(prefix=prefix, lease=lease)
    bundle = _BUNDLE.fullmatch(name)
    if bundle is None:
        return None
    if bundle["ending"] == _MANIFEST:
        return Placed(prefix=prefix, manifest=bundle["id"])
    return Placed(prefix=prefix, mark=(bundle["id"], bundle["ending"]))
