"""The figures of a cache in the types of JSON."""

from typing import Any

from megacache._catalog import EnvironmentFigures


def figures_view(one: EnvironmentFigures) -> dict[str, Any]:
    """Describe an environment."""
    published = one.published
    return {
        "device": one.prefix.device,
        "fingerprint": one.prefix.fingerprint,
        "torch_version": one.torch_version,
        "bundles": {str(state): count for state, count in one.states.items()},
        "bytes": one.size,
        "artifacts": one.artifacts,
        "files": one.files,
        "oldest": published[0].isoformat() if published else None,
        "newest": published[-1].isoformat() if published else None,
    }
