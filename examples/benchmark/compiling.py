"""What a child does with a model: compile and publish it, or give its first output."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.benchmark import ptxas
from examples.benchmark.variants import VARIANTS, Stored, triton_folder

if TYPE_CHECKING:
    from torch import Tensor

    from examples.benchmark.models.case import Case

_TOLERANCE = 1e-4
"""Of an error, in parts of the largest number of the output; on a GPU float32 convolutions may use TF32."""
_GPU_TOLERANCE = 1e-2
_BUILT = (".so", ".gch")
"""What C and C++ compilers make: libraries, precompiled headers."""


def prepare(
    *, model: Mapping[str, Any], variants: Sequence[str], stored: Mapping[str, Any], output: str
) -> dict[str, int]:
    """Compile a model cold and let variants publish it; keep the output, and tell how many graphs it has."""
    import torch

    places, chosen = Stored(**stored), [VARIANTS[name] for name in variants]
    for variant in chosen:
        variant.import_package()
    with ExitStack() as stack:
        # The last to enter is the first to publish, so that they publish in the order of the report.
        for variant in reversed(chosen):
            stack.enter_context(variant.prepared(places))
        case = _build(model)
        answer = _compiled(case)
    torch.save(answer.cpu(), output)
    _check_against_eager(case, answer, model["device"])
    return {"graphs": _lookups()["fx_miss"]}


def first_output(
    *, model: Mapping[str, Any], variant: str, stored: Mapping[str, Any], output: str, graphs: int
) -> dict[str, Any]:
    """Start a process as a variant does, and tell when each stage was over, by the clock of `time.time()`."""
    _hide_packages_of_others(variant)
    import torch

    times = {"imported": time.time()}
    chosen, places = VARIANTS[variant], Stored(**stored)
    chosen.import_package()
    times["package"] = time.time()
    with chosen.started(places):
        times["warmed"] = time.time()
        case = _build(model)
        times["built"] = time.time()
        answer = _compiled(case)
        times["answered"] = time.time()
    made = _made_since(times["warmed"]) + ptxas.runs()
    lookups = _lookups()
    _check_lookups(variant, lookups, graphs)
    _check_against_eager(case, answer, model["device"])
    same = torch.equal(answer.cpu(), torch.load(output))
    # A second compilation need not give the same machine code; a second use of the first one must. On a GPU, libraries
    # and autotuning may choose other kernels each time.
    if not same and variant != "cold" and model["device"] == "cpu":
        raise RuntimeError(f"{variant}: other output than that of the process that compiled it")
    return {**times, **lookups, "built files": made, "same output": int(same)}


def _hide_packages_of_others(variant: str) -> None:
    """Keep torch from importing the redis client, which it does wherever one is installed, for those who do not use it.

    It takes a quarter of a second, which only the remote cache has to pay.
    """
    if "redis" not in VARIANTS[variant].packages:
        sys.modules["redis"] = None  # type: ignore[assignment] # what Python has for "not to be found"


def _build(model: Mapping[str, Any]) -> "Case":
    from examples.benchmark.models import build

    return build(**model)


def _compiled(case: "Case") -> "Tensor":
    import torch

    compiled: Any = torch.compile(case.model, **case.options)
    with torch.no_grad():
        # With CUDA graphs, the output is overwritten by the next call.
        output: Tensor = compiled(*case.example).clone()
    if output.is_cuda:
        torch.cuda.synchronize()
    return output


def _check_against_eager(case: "Case", output: "Tensor", device: str) -> None:
    """Raise unless the output is what the model gives without a compiler."""
    import torch

    with torch.no_grad():
        expected = case.model(*case.example)
    error = ((output - expected).abs().max() / expected.abs().max()).item()
    # Not `>`: an output with NaN is wrong.
    if not error <= (_TOLERANCE if device == "cpu" else _GPU_TOLERANCE):
        raise RuntimeError(f"wrong output: off by {error:.2g} of its largest number")


def _check_lookups(variant: str, found: Mapping[str, int], graphs: int) -> None:
    """Raise unless every lookup of the compiler ended as it does in this variant."""
    hit, miss = (0, graphs) if variant == "cold" else (graphs, 0)
    wanted = {"fx_hit": hit, "fx_miss": miss, "fx_bypass": 0, "aot_hit": hit, "aot_miss": miss, "aot_bypass": 0}
    if found != wanted:
        raise RuntimeError(f"{variant}: lookups were {found}, not {wanted}")


def _lookups() -> dict[str, int]:
    """Read how lookups in both of torch's graph caches have ended in this process."""
    from torch._dynamo.utils import counters

    inductor, aot = counters["inductor"], counters["aot_autograd"]
    endings = ("hit", "miss", "bypass")
    return {
        **{f"fx_{ending}": inductor[f"fxgraph_cache_{ending}"] for ending in endings},
        **{f"aot_{ending}": aot[f"autograd_cache_{ending}"] for ending in endings},
    }


def _made_since(moment: float) -> int:
    """Count what C and C++ compilers have made since a moment, in every cache folder."""
    return sum(path.stat().st_mtime >= moment for path in _cached_files() if path.suffix in _BUILT)


def _cached_files() -> Iterator[Path]:
    from torch._inductor.runtime.cache_dir_utils import cache_dir, default_cache_dir

    for folder in {Path(cache_dir()), Path(default_cache_dir()), triton_folder()}:
        yield from folder.rglob("*")
