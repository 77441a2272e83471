"""What a child does with a model: compile and publish it, or give its first output."""

import os
import shutil
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import Tensor

WARM_VARIANTS = ("plain", "copy", "megacache", "megacache-s3")
"""All that start from something; `cold` starts from nothing."""
VARIANTS = ("cold", *WARM_VARIANTS)

OUTPUT, BLOB = "output.pt", "blob.bin"
_TOLERANCE = 1e-5


def prepare(*, model: str, quick: bool, folder: str, stores: Sequence[tuple[str, Mapping[str, Any]]]) -> dict[str, Any]:
    """Compile a model once and leave what the variants start from: output, blob, bundles, and the cache folder."""
    import torch

    import megacache
    from examples.benchmark.models import build

    output = _compiled(build(model, quick=quick))
    torch.save(output, Path(folder, OUTPUT))
    saved = torch.compiler.save_cache_artifacts()
    if saved is None:
        raise RuntimeError("torch has recorded nothing")
    Path(folder, BLOB).write_bytes(saved[0])
    for url, storage_options in stores:
        published = megacache.publish(url, storage_options=storage_options, strict=True)
        if published.status is not megacache.PublishStatus.PUBLISHED:
            raise RuntimeError(f"not published: {published}")
    return {"graphs": _lookups()["fx_miss"], "blob_bytes": len(saved[0]), "stored_bytes": published.bytes_stored}


def first_output(
    *, model: str, quick: bool, variant: str, folder: str, source: str, storage_options: Mapping[str, Any], graphs: int
) -> dict[str, Any]:
    """Start a process as a variant does, and tell when each stage was over, by the clock of `time.time()`."""
    import torch

    imported = time.time()
    _start(variant, source, storage_options)
    warmed = time.time()
    from examples.benchmark.models import build

    case = build(model, quick=quick)
    built = time.time()
    output = _compiled(case)
    answered = time.time()
    _check(variant, output, torch.load(Path(folder, OUTPUT)), graphs)
    return {"imported": imported, "warmed": warmed, "built": built, "answered": answered}


def _start(variant: str, source: str, storage_options: Mapping[str, Any]) -> None:
    """Bring what was compiled before into this process's empty cache folder."""
    if variant == "plain":
        import torch

        if torch.compiler.load_cache_artifacts(Path(source).read_bytes()) is None:
            raise RuntimeError("torch refused its own blob")
    elif variant == "copy":
        shutil.copytree(source, os.environ["TORCHINDUCTOR_CACHE_DIR"])
    elif variant != "cold":
        import megacache

        warmed = megacache.warm(source, storage_options=storage_options, strict=True)
        if not warmed:
            raise RuntimeError(f"not loaded: {warmed}")


def _compiled(case: Any) -> "Tensor":
    import torch

    compiled: Any = torch.compile(case.model)
    with torch.no_grad():
        output: Tensor = compiled(case.example)
    return output


def _check(variant: str, output: "Tensor", expected: "Tensor", graphs: int) -> None:
    """Raise unless the output is right, and every lookup of the compiler ended as it does in this variant."""
    import torch

    hit, miss = (0, graphs) if variant == "cold" else (graphs, 0)
    wanted = {"fx_hit": hit, "fx_miss": miss, "fx_bypass": 0, "aot_hit": hit, "aot_miss": miss, "aot_bypass": 0}
    if (found := _lookups()) != wanted:
        raise RuntimeError(f"{variant}: lookups were {found}, not {wanted}")
    # A second compilation need not give the same machine code; a second use of the first one must.
    same = torch.allclose(output, expected, atol=_TOLERANCE) if variant == "cold" else torch.equal(output, expected)
    if not same:
        raise RuntimeError(f"{variant}: wrong output, off by {(output - expected).abs().max().item()}")


def _lookups() -> dict[str, int]:
    """Read how lookups in both of torch's graph caches have ended in this process."""
    from torch._dynamo.utils import counters

    inductor, aot = counters["inductor"], counters["aot_autograd"]
    endings = ("hit", "miss", "bypass")
    return {
        **{f"fx_{ending}": inductor[f"fxgraph_cache_{ending}"] for ending in endings},
        **{f"aot_{ending}": aot[f"autograd_cache_{ending}"] for ending in endings},
    }
