"""The names of things in a store.

<device slug>/<fingerprint>/bundles/<bundle id>.msgpack     a manifest: the bundle exists when its manifest does
<device slug>/<fingerprint>/bundles/<bundle id>.<mark>      withdraws it from readers
<device slug>/<fingerprint>/chunks/<sha256>.zst             a compressed chunk, named by the digest of its stored bytes
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass

from megacache._digest import Digest

WITHDRAWING_MARKS = frozenset({"quarantined", "superseded"})
"""Marks that make readers pass a bundle by."""

_BUNDLE = re.compile(r"(?P<id>[0-9a-f]{32})\.(?P<ending>[a-z]+)")
_MANIFEST = re.compile(r"(?P<environment>[a-z0-9-]+/[0-9a-f]{16})/bundles/(?P<id>[0-9a-f]{32})\.msgpack")


def slug(device: str) -> str:
    """Turn a device name into a folder name: `NVIDIA H100 80GB HBM3` becomes `nvidia-h100-80gb-hbm3`."""
    return re.sub(r"[^a-z0-9]+", "-", device.lower()).strip("-") or "unknown"


def manifest_name(bundle: str) -> str:
    """Name a manifest within `bundles/`."""
    return f"{bundle}.msgpack"


@dataclass(frozen=True, slots=True)
class EnvironmentPrefix:
    """Where the bundles of one environment lie."""

    path: str
    """`<device slug>/<fingerprint>`"""

    @property
    def bundles(self) -> str:
        """The folder of manifests and marks."""
        return f"{self.path}/bundles"

    def manifest(self, bundle: str) -> str:
        """Name a manifest."""
        return f"{self.bundles}/{manifest_name(bundle)}"

    def chunk(self, digest: Digest) -> str:
        """Name a chunk."""
        return f"{self.path}/chunks/{digest.hex}.zst"


def environment_prefix(device: str, fingerprint: str) -> EnvironmentPrefix:
    """Say where an environment's bundles lie."""
    return EnvironmentPrefix(f"{slug(device)}/{fingerprint}")


def split_listing(names: Iterable[str]) -> tuple[frozenset[str], frozenset[str]]:
    """Sort the ids in a listing of `bundles/` into visible and withdrawn; names of another form mean nothing."""
    matches = [match for name in names if (match := _BUNDLE.fullmatch(name))]
    withdrawn = frozenset(match["id"] for match in matches if match["ending"] in WITHDRAWING_MARKS)
    published = frozenset(match["id"] for match in matches if match["ending"] == "msgpack")
    return published - withdrawn, withdrawn


def one_bundle_per_environment(keys: Iterable[str]) -> dict[EnvironmentPrefix, str]:
    """Find the environments in a listing of a whole cache, each with the id of one of its bundles."""
    matches = (match for key in sorted(keys) if (match := _MANIFEST.fullmatch(key)))
    return {EnvironmentPrefix(match["environment"]): match["id"] for match in matches}
