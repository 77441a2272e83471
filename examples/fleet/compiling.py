"""Compile models for real: `python -m examples.fleet.compiling FILE MODEL...`.

For each model of `tests.kit.models` it keeps what PyTorch recorded, the libraries that its C++ compiler made, and the
seconds it took.
"""

import pickle
import sys
import time
from pathlib import Path

from examples.fleet.recording import SECONDS, Compilation


def _compile(model: str) -> Compilation:
    from megacache._cache.recording import take
    from megacache._cache.session import Session
    from megacache._runtime import Deadline
    from tests.kit import models

    before = take(Session(), Deadline.after(SECONDS), files=True).found
    begun = time.monotonic()
    getattr(models, model)()
    seconds = time.monotonic() - begun
    found = take(Session(), Deadline.after(SECONDS), files=True).found
    return Compilation(
        model=model,
        artifacts=[
            (one.kind, one.key, bytes(one.content))
            for ref, one in found.artifacts.items()
            if ref not in before.artifacts
        ],
        libraries=[(ref.path, one.content) for ref, one in found.files.items() if ref not in before.files],
        seconds=seconds,
    )


def main() -> None:
    """Compile, and keep what that left."""
    import torch._inductor.compile_fx  # noqa: F401 - what is watched is there only then

    from megacache import _compiler

    _compiler.watch()
    file, *models = sys.argv[1:]
    Path(file).write_bytes(pickle.dumps(tuple(map(_compile, models))))


if __name__ == "__main__":
    main()
