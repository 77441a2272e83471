"""What the names of an environment's objects tell of its bundles."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Self

from megacache._bundle import (
    COPIED,
    QUARANTINED,
    EnvironmentPrefix,
    LeaseName,
    lease_of,
    manifest_name,
    marked,
    signature_of,
    split_listing,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Listing:
    """What one LIST of an environment's bundles tells."""

    visible: Mapping[str, int]
    """Size of the manifest in bytes, by bundle id."""
    withdrawn: frozenset[str]
    """Ids that have a mark which hides them from readers."""
    copied: frozenset[str]
    """Ids that are marked as copies of another place's."""
    quarantined: Mapping[str, int]
    """Size of the manifest of each bundle that is out of service."""
    signatures: Mapping[tuple[str, str], int]
    """Size of each signature that was added later, by bundle id and tag of the signature."""
    leases: tuple[LeaseName, ...]
    """Beats of leases, the newest last."""
    elsewhere: Mapping[str, EnvironmentPrefix] = field(default_factory=dict)
    """Where the bundles lie that do not lie with the others, for they serve beside any CPU."""

    @property
    def is_empty(self) -> bool:
        """True if there is no bundle, and no mark that tells of one."""
        return not (self.visible or self.withdrawn)

    @classmethod
    def of(cls, sizes: Mapping[str, int]) -> Self:
        """Read what the names of objects tell, which have these sizes, as `Catalog.names` gives them."""
        own = {name: size for name, size in sizes.items() if "/" not in name}
        others = {name.rpartition("/")[::2]: size for name, size in sizes.items() if "/" in name}
        elsewhere = {name.partition(".")[0]: EnvironmentPrefix(path) for path, name in others}
        for name in own:
            elsewhere.pop(name.partition(".")[0], None)
        sizes = {**{name: size for (_, name), size in others.items()}, **own}
        visible, withdrawn = split_listing(sizes)
        return cls(
            visible={bundle: sizes[manifest_name(bundle)] for bundle in sorted(visible)},
            withdrawn=withdrawn,
            copied=marked(sizes, COPIED),
            quarantined={
                bundle: sizes[manifest_name(bundle)]
                for bundle in sorted(withdrawn)
                if f"{bundle}.{QUARANTINED}" in sizes and manifest_name(bundle) in sizes
            },
            signatures={found: size for name, size in sizes.items() if (found := signature_of(name))},
            leases=tuple(sorted(lease for name in sizes if (lease := lease_of(name)))),
            elsewhere=elsewhere,
        )
