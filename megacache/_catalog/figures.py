"""What a cache holds, in figures: bundles by state, bytes, artifacts, compiled files, dates and labels."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from megacache._bundle import QUARANTINED, EnvironmentPrefix, Manifest, environment_prefix
from megacache._catalog.catalog import Catalog
from megacache._catalog.inventory import Holding, given
from megacache._runtime import Done, moment_of
from megacache._store import Store


class BundleState(StrEnum):
    """What readers do with a bundle."""

    SERVING = "serving"
    """They load it."""
    QUARANTINED = "quarantined"
    """Somebody has taken it out of service."""
    SUPERSEDED = "superseded"
    """Another bundle stands for it."""
    UNUSABLE = "unusable"
    """Its manifest cannot be read, or it lacks chunks."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BundleFigures:
    """A bundle in figures."""

    state: BundleState
    published: datetime | None
    """In UTC; None if its manifest does not tell."""
    artifacts: int
    files: int
    labels: Mapping[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class EnvironmentFigures:
    """An environment in figures."""

    prefix: EnvironmentPrefix
    torch_version: str
    """Empty if no manifest tells it."""
    size: int
    """Bytes of all that is stored for it, marks and leases aside."""
    bundles: tuple[BundleFigures, ...]

    @property
    def states(self) -> Mapping[BundleState, int]:
        """Count the bundles in each state."""
        counts = Counter(one.state for one in self.bundles)
        return {state: counts[state] for state in BundleState}

    @property
    def artifacts(self) -> int:
        """Count the artifacts in bundles that serve."""
        return sum(one.artifacts for one in self.bundles if one.state is BundleState.SERVING)

    @property
    def files(self) -> int:
        """Count the compiled files in bundles that serve."""
        return sum(one.files for one in self.bundles if one.state is BundleState.SERVING)

    @property
    def published(self) -> tuple[datetime, ...]:
        """Give the dates of all publications, the oldest first."""
        return tuple(sorted(one.published for one in self.bundles if one.published is not None))


def read_figures(store: Store, holdings: Iterable[Holding]) -> tuple[EnvironmentFigures, ...]:
    """Read all manifests of some environments; raise `StoreError` if the store would not give one that is there."""
    return tuple(figures_of(one, Catalog(store, one.prefix).read(one.manifests)) for one in holdings)


def figures_of(holding: Holding, manifests: Iterable[Done[str, Manifest]]) -> EnvironmentFigures:
    """Count what the manifests of an environment tell."""
    bundles, versions, visible = [], [], holding.visible
    for done in given(manifests):
        withdrawn = None if done.item in visible else _withdrawn(holding, done.item)
        bundles.append(_bundle_figures(done.value, withdrawn or _loaded(holding, done.value)))
        if done.value is not None and _lies_where_it_says(done.value, holding.prefix):
            versions.append(done.value.environment.facts.get("torch_version", ""))
    return EnvironmentFigures(
        prefix=holding.prefix,
        torch_version=next(iter(versions), ""),  # equal in all: it enters the fingerprint
        size=holding.size,
        bundles=tuple(bundles),
    )


def _bundle_figures(manifest: Manifest | None, state: BundleState) -> BundleFigures:
    if manifest is None:
        return BundleFigures(state=state, published=None, artifacts=0, files=0, labels={})
    return BundleFigures(
        state=state,
        published=moment_of(manifest.created),
        artifacts=len(manifest.artifacts),
        files=len(manifest.files.index),
        labels=manifest.labels,
    )


def _withdrawn(holding: Holding, bundle: str) -> BundleState:
    return BundleState.QUARANTINED if QUARANTINED in holding.marks[bundle] else BundleState.SUPERSEDED


def _loaded(holding: Holding, manifest: Manifest | None) -> BundleState:
    return BundleState.UNUSABLE if manifest is None or holding.lacking(manifest) else BundleState.SERVING


def _lies_where_it_says(manifest: Manifest, prefix: EnvironmentPrefix) -> bool:
    return environment_prefix(manifest.environment.device, manifest.environment.fingerprint) == prefix
