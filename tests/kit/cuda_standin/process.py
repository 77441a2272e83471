"""One start under the stand-in: warm, run a program of `programs`, publish twice, and report as JSON."""

import json
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import megacache

Answer = dict[str, Any]
FOLDERS = ("HOME", "TORCHINDUCTOR_CACHE_DIR", "TMPDIR")
_COUNTED = {"inductor": "fxgraph_cache", "aot_autograd": "autograd_cache"}


def main(program: str, url: str, report: Path) -> None:
    """Do all steps; what fails is part of the report."""
    told: Answer = {"environment": _told(_environment)}
    told["warm"] = _told(lambda: _result(megacache.warm(url)))
    told["restored"] = _files()
    told["failed"] = _told(lambda: _run(program)).get("raised", "")
    told["lookups"] = _lookups()
    told["published"] = [_told(lambda: _result(megacache.publish(url))) for _ in range(2)]
    told["receipt"] = _told(lambda: megacache.receipt().to_json())
    unfinished = report.with_suffix(".part")
    unfinished.write_text(json.dumps(told))
    unfinished.rename(report)


def _run(program: str) -> Answer:
    import torch

    from tests.kit.cuda_standin.programs import PROGRAMS

    PROGRAMS[program]()
    torch.cuda.synchronize()
    return {}


def _told(ask: Callable[[], Answer]) -> Answer:
    try:
        return ask()
    except Exception as error:  # noqa: BLE001 - whatever it is, the test tells
        return {"raised": f"{type(error).__name__}: {str(error)[:2000]}"}


def _environment() -> Answer:
    found = megacache.environment()
    unread = getattr(found, "unread", None)
    known = {"facts": dict(found.facts), "recorded": dict(found.recorded)}
    return known if unread is None else {**known, "unread": dict(unread)}


def _result(result: Any) -> Answer:
    return {
        "status": result.status.value,
        "reason": result.reason,
        "warnings": list(result.warnings),
        "artifacts": dict(result.artifacts),
        "files": result.files,
    }


def _lookups() -> Mapping[str, Mapping[str, int]]:
    """Tell what PyTorch counted, by cache."""
    from torch._dynamo.utils import counters

    states = ("hit", "miss", "bypass")
    return {
        cache: {state: counters[cache][f"{prefix}_{state}"] for state in states} for cache, prefix in _COUNTED.items()
    }


def _files() -> list[str]:
    """List the files in the folders of this start, which were empty before."""
    roots = {Path(os.environ[name]): name for name in FOLDERS if name in os.environ}
    return sorted(
        f"{name}/{path.relative_to(root)}"
        for root, name in roots.items()
        for path in root.rglob("*")
        if path.is_file() and not any(path.is_relative_to(inner) for inner in roots.keys() - {root, *root.parents})
    )


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
