"""Section A: from the start of a process to its first output."""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from examples.benchmark.bench import Bench, Place
from examples.benchmark.compiling import BLOB, VARIANTS
from examples.benchmark.samples import Sample, noted, rotated

SECTION = "first output"
MODELS = ("transformer", "resnet")
STAGES = ("start", "import torch", "warm", "build", "first call")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """One model that was compiled and published."""

    folder: Path
    cache_folder: Path
    stores: Mapping[str, Place]
    graphs: int

    def source(self, variant: str) -> dict[str, Any]:
        """Say where a variant finds what was compiled."""
        if variant in self.stores:
            place = self.stores[variant]
            return {"source": place.url, "storage_options": place.storage_options}
        path = self.cache_folder if variant == "copy" else self.folder / BLOB
        return {"source": str(path), "storage_options": {}}


def measure(bench: Bench) -> Iterator[Sample]:
    """Compile each model once, then start a process for each variant in each round."""
    with ExitStack() as stack:
        prepared = {model: _prepare(bench, stack, model) for model in MODELS}
        for turn in range(bench.rounds):
            for model in MODELS:
                for variant in rotated(VARIANTS, turn):
                    values = _first_output(bench, model, variant, prepared[model])
                    yield noted(Sample(section=SECTION, case=model, variant=variant, round=turn, values=values))


def _prepare(bench: Bench, stack: ExitStack, model: str) -> _Prepared:
    folder = stack.enter_context(bench.scratch())
    stores = {
        "megacache": stack.enter_context(bench.place("disk")),
        "megacache-s3": stack.enter_context(bench.place("s3")),
    }
    options = {
        "model": model,
        "quick": bench.quick,
        "folder": str(folder),
        "stores": [(place.url, place.storage_options) for place in stores.values()],
    }
    cache_folder = folder / "inductor"
    answer = bench.run("prepare", options, cache_folder=cache_folder)
    return _Prepared(folder=folder, cache_folder=cache_folder, stores=stores, graphs=answer["graphs"])


def _first_output(bench: Bench, model: str, variant: str, prepared: _Prepared) -> dict[str, float]:
    options = {
        "model": model,
        "quick": bench.quick,
        "variant": variant,
        "folder": str(prepared.folder),
        "graphs": prepared.graphs,
        **prepared.source(variant),
    }
    answer = bench.run("first_output", options)
    times = [answer[name] for name in ("started", "begun", "imported", "warmed", "built", "answered")]
    stages = {stage: after - before for stage, (before, after) in zip(STAGES, pairwise(times), strict=True)}
    return {"total": times[-1] - times[0], **stages, "load average": answer["load_average"]}
