"""Section A: from the start of a process to its first output."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from itertools import pairwise
from typing import Any

from examples.benchmark.bench import Bench, ProcessFailedError
from examples.benchmark.samples import Failure, Sample, Step, noted, rotated
from examples.benchmark.variants import VARIANTS, Stored, Variant

SECTION = "first output"
_log = logging.getLogger("benchmark")
STAGES = ("start", "import torch", "import package", "warm", "build", "first call")
_MOMENTS = ("started", "begun", "imported", "package", "warmed", "built", "answered")


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """One model, and what was compiled and published of it so far."""

    stored: Stored
    graphs: dict[str, int | ProcessFailedError] = field(default_factory=dict)
    """By preparation: how many there are, or why there are none."""


def planned(bench: Bench) -> Sequence[Step]:
    """List what is measured: in each round each variant of each model, one model after the other."""
    # Whatever is prepared apart costs a compilation of its own; it comes last, in case the time is short.
    variants = sorted(bench.variants, key=lambda name: VARIANTS[name].preparation != Variant.preparation)
    return [
        Step(SECTION, model, variant, turn)
        for turn in range(bench.rounds)
        for model in bench.models
        for variant in rotated(variants, turn)
    ]


def measure(bench: Bench) -> Iterator[Sample | Failure]:
    """Compile each model once for each preparation, when it is needed, and start a process for each step."""
    with ExitStack() as stack:
        prepared: dict[str, _Prepared] = {}
        for step in planned(bench):
            if step.case not in prepared:
                prepared[step.case] = _Prepared(stored=_stored(bench, stack))
            try:
                values = _first_output(bench, step.case, step.variant, prepared[step.case])
            except ProcessFailedError as error:
                # One model that does not work on a device, or one peer, should not take the others with it.
                _log.warning("%s: %s failed: %s", step.case, step.variant, error)
                yield Failure(step=step, reason=str(error))
            else:
                yield noted(Sample(**step._asdict(), values=values))


def _stored(bench: Bench, stack: ExitStack) -> Stored:
    folder = stack.enter_context(bench.scratch())
    s3: Mapping[str, Any] = {}
    if "s3" in bench.kinds:
        place = stack.enter_context(bench.place("s3"))
        s3 = {"s3_url": place.url, "s3_options": place.storage_options}
    return Stored(folder=str(folder), redis_url=bench.redis_url, **s3)


def _graphs(bench: Bench, model: str, preparation: str, prepared: _Prepared) -> int:
    """Have a model compiled and published if that is still to be done, and tell how many graphs it took."""
    if preparation not in prepared.graphs:
        try:
            prepared.graphs[preparation] = _prepare(bench, model, preparation, prepared.stored)
        except ProcessFailedError as error:
            prepared.graphs[preparation] = error
    found = prepared.graphs[preparation]
    if isinstance(found, ProcessFailedError):
        raise found
    return found


def _prepare(bench: Bench, model: str, preparation: str, stored: Stored) -> int:
    variants = [name for name in bench.variants if VARIANTS[name].preparation == preparation]
    variables = {key: value for name in variants for key, value in _variables(bench, name, stored).items()}
    options = {"variants": variants, **_options(bench, model, preparation, stored)}
    graphs: int = bench.run("prepare", options, variables=variables)["graphs"]
    _log.info("prepared: %s for %s, %d graph(s)", model, ", ".join(variants), graphs)
    return graphs


def _first_output(bench: Bench, model: str, variant: str, prepared: _Prepared) -> dict[str, float]:
    preparation = VARIANTS[variant].preparation
    graphs = _graphs(bench, model, preparation, prepared)
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
