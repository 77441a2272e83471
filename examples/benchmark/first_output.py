"""Section A: from the start of a process to its first output."""

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any

from examples.benchmark.bench import Bench
from examples.benchmark.samples import Sample, noted, rotated
from examples.benchmark.variants import VARIANTS, Stored

SECTION = "first output"
_log = logging.getLogger("benchmark")
STAGES = ("start", "import torch", "import package", "warm", "build", "first call")
_MOMENTS = ("started", "begun", "imported", "package", "warmed", "built", "answered")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """One model that was compiled and published."""

    stored: Stored
    graphs: Mapping[str, int]
    """By preparation."""


def measure(bench: Bench) -> Iterator[Sample]:
    """Compile each model once for each preparation, then start a process for each variant in each round."""
    with ExitStack() as stack:
        prepared = {model: _prepare(bench, stack, model) for model in bench.models}
        for turn in range(bench.rounds):
            for model in bench.models:
                for variant in rotated(bench.variants, turn):
                    values = _first_output(bench, model, variant, prepared[model])
                    yield noted(Sample(section=SECTION, case=model, variant=variant, round=turn, values=values))


def _prepare(bench: Bench, stack: ExitStack, model: str) -> _Prepared:
    folder, place = stack.enter_context(bench.scratch()), stack.enter_context(bench.place("s3"))
    stored = Stored(folder=str(folder), s3_url=place.url, s3_options=place.storage_options, redis_url=bench.redis_url)
    graphs = {
        preparation: _graphs(bench, model, preparation, stored)
        for preparation in dict.fromkeys(VARIANTS[name].preparation for name in bench.variants)
    }
    return _Prepared(stored=stored, graphs=graphs)


def _graphs(bench: Bench, model: str, preparation: str, stored: Stored) -> int:
    """Compile and publish a model in one process, and tell how many graphs it took."""
    variants = [name for name in bench.variants if VARIANTS[name].preparation == preparation]
    variables = {key: value for name in variants for key, value in _variables(bench, name, stored).items()}
    options = {"variants": variants, **_options(bench, model, preparation, stored)}
    graphs: int = bench.run("prepare", options, variables=variables)["graphs"]
    _log.info("prepared: %s for %s, %d graph(s)", model, ", ".join(variants), graphs)
    return graphs


def _first_output(bench: Bench, model: str, variant: str, prepared: _Prepared) -> dict[str, float]:
    preparation = VARIANTS[variant].preparation
    graphs = prepared.graphs[preparation]
    options = {"variant": variant, "graphs": graphs, **_options(bench, model, preparation, prepared.stored)}
    answer = bench.run("first_output", options, variables=_variables(bench, variant, prepared.stored))
    times = [answer.pop(moment) for moment in _MOMENTS]
    stages = {stage: after - before for stage, (before, after) in zip(STAGES, pairwise(times), strict=True)}
    return {"total": times[-1] - times[0], **stages, **answer}


def _variables(bench: Bench, variant: str, stored: Stored) -> Mapping[str, str]:
    return VARIANTS[variant].variables(stored, bench.tmp)


def _options(bench: Bench, model: str, preparation: str, stored: Stored) -> dict[str, Any]:
    """Give what a child needs to build a model, to find what is stored, and the output to compare with its own."""
    return {
        "model": {"name": model, "size": "quick" if bench.quick else bench.device, "device": bench.device},
        "stored": asdict(stored),
        "output": str(stored.path(f"output-{preparation}.pt")),
    }
