"""Bundles and environments in the types of JSON."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from megacache._bundle import EnvironmentPrefix, Manifest
from megacache._catalog import Catalog, Holding
from megacache._cli.output import age_seconds
from megacache._store import Store
from megacache.errors import MegacacheError

View = dict[str, Any]


def place_view(prefix: EnvironmentPrefix) -> View:
    """Name an environment."""
    return {"device": prefix.device, "fingerprint": prefix.fingerprint}


def failed_view(failed: Iterable[tuple[str, MegacacheError]]) -> list[View]:
    """Say of each bundle that cannot be used what is wrong."""
    return [{"bundle": bundle, "kind": type(fault).__name__, "message": str(fault)} for bundle, fault in failed]


def read_manifests(
    catalog: Catalog, holding: Holding, bundles: Mapping[str, int]
) -> Iterator[tuple[str, Manifest | None, MegacacheError | None]]:
    """Read manifests, each with what is wrong with it, or with the chunks that it names."""
    for done in catalog.read(bundles):
        yield done.item, done.value, done.fault or (holding.lacking(done.value) if done.value else None)


def environment_view(store: Store, holding: Holding) -> View:
    """Describe an environment, with all its bundles, the newest first; their manifests are read for it."""
    bundles: list[View] = []
    for bundle, manifest, fault in read_manifests(Catalog(store, holding.prefix), holding, holding.manifests):
        described = {"bundle": bundle} if manifest is None else bundle_view(manifest)
        marks = sorted(holding.marks.get(bundle, ()))
        bundles.append({**described, "marks": marks, "fault": str(fault) if fault else None})
    bundles.sort(key=lambda one: (one.get("created", ""), one["bundle"]), reverse=True)
    return {
        **place_view(holding.prefix),
        "bytes": holding.size,
        "chunks": len(holding.chunks),
        "bundles": bundles,
    }


def bundle_view(manifest: Manifest) -> View:
    """Describe a bundle in a few numbers."""
    return {
        "bundle": manifest.bundle,
        "created": manifest.created,
        "age_seconds": age_seconds(manifest.created),
        "producer": manifest.producer,
        "artifacts": dict(sorted(Counter(artifact.kind for artifact in manifest.artifacts).items())),
        "files": len(manifest.files.index),
        "bytes_stored": sum(chunk.stored_size for chunk in manifest.chunks),
        "bytes_raw": sum(chunk.raw_size for chunk in manifest.chunks),
        "parents": list(manifest.parents),
        "labels": dict(manifest.labels),
    }


def full_view(manifest: Manifest, signers: list[View]) -> View:
    """Describe a bundle down to each artifact, file and chunk."""
    return {
        **bundle_view(manifest),
        "environment": {"facts": dict(manifest.environment.facts), "recorded": dict(manifest.environment.recorded)},
        "signatures": signers,
        "artifact_index": [
            {"kind": one.kind, "key": one.key, "digest": str(one.digest), "size": one.size}
            for one in manifest.artifacts
        ],
        "file_guard": dict(manifest.files.guard),
        "file_index": [
            {"root": one.root, "path": one.path, "digest": str(one.digest), "size": one.size, "mode": one.mode}
            for one in manifest.files.index
        ],
        "chunks": [
            {
                "part": one.part,
                "digest": str(one.digest),
                "stored_size": one.stored_size,
                "raw_size": one.raw_size,
                "codec": one.codec,
            }
            for one in manifest.chunks
        ],
    }


def counts_text(counts: Mapping[str, int]) -> str:
    """Write artifacts by kind in a few words."""
    return ", ".join(f"{count} {kind}" for kind, count in counts.items()) or "none"


def labels_text(labels: Mapping[str, str]) -> str:
    """Write labels in one line."""
    return " ".join(f"{name}={value}" for name, value in sorted(labels.items()))
