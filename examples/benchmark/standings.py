"""Section A and the verdict as Markdown."""

from collections.abc import Iterator, Sequence

from examples.benchmark import first_output
from examples.benchmark.samples import Sample, cases, median_sample, quotient, series, total_of, value
from examples.benchmark.tables import NOT_MEASURED, number, ratio, span, table, yes_or_no
from examples.benchmark.variants import VARIANTS
from examples.benchmark.verdict import AIM_OF_COPY, LEAST_OF_PLAIN, MOST_OF_COPY, Verdict, held, verdicts

_REFERENCES = ("cold", "plain", "copy", "floor")
_TOLD = """\
Seconds from the start of the process to its first output.

{variants}

Every process began with an empty home, an empty temporary folder and so an empty cache folder, at the same paths, as in
containers of one image. Each output was compared with that of the model without a compiler, and each lookup of the
compiler counted: where something was published, all hit.{bits}

`built` counts what compilers still made: libraries and precompiled headers, and a GPU's kernels, by the runs of ptxas.
The stages are those of the run whose total is the median."""
_BITS = "\nIn every warm start the output was, bit for bit, that of the process that had compiled it."
_VERDICT = """\
Bars: megacache ÷ copy at most {most:g} (the aim is {aim:g}), plain ÷ megacache at least {least:g}, and no peer ahead.
Medians of the ratios of each round, with the least and the most."""


def first_outputs(samples: Sequence[Sample]) -> Iterator[str]:
    """Write the tables of the time to the first output."""
    measured = {sample.variant for sample in samples}
    told = "\n".join(f"- `{name}`: {variant.told}" for name, variant in VARIANTS.items() if name in measured)
    same = all(sample.values["same output"] for sample in samples if sample.variant != "cold")
    yield "## Time to the first output of a fresh process"
    yield _TOLD.format(variants=told, bits=_BITS if same else "")
    for model in cases(samples):
        yield f"### {model}"
        header = ("variant", "seconds", "least to most", *first_output.STAGES, "built")
        yield table(
            (*header, *(f"÷ {name}" for name in _REFERENCES)),
            (_row(samples, model, name) for name in VARIANTS if total_of(samples, model, name)),
        )
    yield from _verdict(list(verdicts(samples)))


def _row(samples: Sequence[Sample], model: str, variant: str) -> tuple[str, ...]:
    total = series(samples, model, variant, value("total"))
    middle = median_sample(samples, model, variant).values
    parts = (f"{middle[stage]:.2f}" for stage in first_output.STAGES)
    built = f"{middle['built files']:.0f}"
    ratios = (quotient(total, total_of(samples, model, other)) for other in _REFERENCES)
    return (variant, number(total), span(total), *parts, built, *map(ratio, ratios))


def _verdict(judged: Sequence[Verdict]) -> Iterator[str]:
    if not judged:
        return
    header = (
        *("model", "variant", "÷ copy", f"≤ {MOST_OF_COPY:g}", f"≤ {AIM_OF_COPY:g}"),
        *("plain ÷", f"≥ {LEAST_OF_PLAIN:g}", "best peer", "÷ best peer", "none ahead"),
    )
    good, all_bars = held(judged)
    yield "## Verdict"
    yield _VERDICT.format(most=MOST_OF_COPY, aim=AIM_OF_COPY, least=LEAST_OF_PLAIN)
    yield table(header, map(_verdict_row, judged))
    yield f"{good} of {all_bars} bars hold."


def _verdict_row(verdict: Verdict) -> tuple[str, ...]:
    return (
        verdict.model,
        verdict.variant,
        ratio(verdict.of_copy),
        yes_or_no(verdict.keeps_up_with_copy),
        yes_or_no(verdict.reaches_aim),
        ratio(verdict.plain_of_it),
        yes_or_no(verdict.outruns_plain),
        verdict.best_peer or NOT_MEASURED,
        ratio(verdict.of_best),
        yes_or_no(verdict.leads),
    )
