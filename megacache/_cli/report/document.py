"""The figures of a cache in the types of JSON."""

from typing import Any

from megacache._catalog import EnvironmentFigures, Worth, Worths


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


def worths_view(found: Worths) -> dict[str, Any]:
    """Describe what starts were worth."""
    return {
        "environments": list(map(_worth_view, found.environments)),
        "reasons": [
            {"reason": reason, "processes": processes, "lookups": lookups}
            for reason, processes, lookups in found.reasons
        ],
        "left_out": found.left_out,
    }


def _worth_view(one: Worth) -> dict[str, Any]:
    return {
        "device": one.prefix.device,
        "fingerprint": one.prefix.fingerprint,
        "torch_version": one.torch_version,
        "processes": len(one.receipts),
        "starts": dict(sorted(one.starts.items())),
        "hit": one.hit,
        "lookups": one.total,
        "hit_rate": one.rate,
        "seconds_saved": round(one.seconds_saved, 3),
        "seconds_warming": round(one.seconds_warming, 3),
        "bytes": one.bytes_stored,
    }
