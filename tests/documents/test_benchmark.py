"""The benchmark compares what it says it compares, and judges by the bars it names."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import get_args

import pytest
import torch

from examples.benchmark import figure, first_output, imports, transfers
from examples.benchmark.bench import Bench
from examples.benchmark.corpus import SMALLEST, Content, write_corpus
from examples.benchmark.models import GPU_MODELS, build
from examples.benchmark.report import markdown
from examples.benchmark.results import Results, read, write
from examples.benchmark.samples import Sample, rotated
from examples.benchmark.variants import OURS, PEERS, VARIANTS, Variant
from examples.benchmark.verdict import held, verdicts

SECONDS = {"cold": 20.0, "plain": 16.0, "fal": 8.0, "b10": 6.0, "copy": 5.0, "redis": 18.0, "megacache": 4.0}
FACTS = {
    "date": "2026-01-01",
    "command": "benchmark",
    "commit": "unknown",
    "cpu": "a CPU",
    "cores": 2,
    "memory_gb": 8,
    "gpu": "",
    "device_name": "a CPU",
    "versions": {"torch": "2.13.0"},
    "rounds": 3,
    "left_out": {"fal": "for lack of Python package fal"},
}


def samples(seconds: Mapping[str, float]) -> Iterator[Sample]:
    """Give three rounds, of which the last was twice as slow for all."""
    for turn, slowness in enumerate((1.0, 1.1, 2.0)):
        for variant, total in seconds.items():
            stages = dict.fromkeys(first_output.STAGES, 0.0) | {"first call": total * slowness}
            values = {"total": total * slowness, "built files": 3, "same output": 1, **stages}
            yield Sample(section=first_output.SECTION, case="gpt", variant=variant, round=turn, values=values)


def test_each_variant_takes_its_turn_as_the_first() -> None:
    """In as many rounds as there are variants, each is the first once."""
    assert {rotated(tuple(VARIANTS), turn)[0] for turn in range(len(VARIANTS))} == set(VARIANTS)


def test_every_variant_is_a_peer_or_ours_or_a_measure() -> None:
    """Nothing that somebody could use escapes the verdict."""
    assert {"cold", "floor", *PEERS, *OURS} == set(VARIANTS)


def test_ratios_are_of_the_same_round() -> None:
    """A round in which the machine was slow changes no ratio."""
    (verdict,) = verdicts(list(samples(SECONDS)))
    assert verdict.of_copy is not None
    assert verdict.of_copy.span == pytest.approx((0.8, 0.8))


def test_bars_that_hold() -> None:
    """Faster than the copy by the aim, four times as fast as the plain API and ahead of all peers: yes throughout."""
    (verdict,) = verdicts(list(samples(SECONDS)))
    assert verdict.reaches_aim
    assert verdict.bars == (True, True, True)
    assert verdict.best_peer == "copy"


def test_bars_that_do_not_hold_are_told() -> None:
    """A peer that is ahead, a plain API that is near and a copy that is faster are each a no."""
    judged = list(verdicts(list(samples(SECONDS | {"megacache": 5.5, "b10": 4.5}))))
    assert judged[0].best_peer == "b10"
    assert judged[0].bars == (False, False, False)
    assert held(judged) == (0, 3)
    assert "**no**" in markdown(Results(facts=FACTS, samples=list(samples(SECONDS | {"megacache": 5.5}))))


def test_what_was_not_measured_is_not_judged() -> None:
    """Without peers, there is no verdict, rather than a favourable one."""
    judged = list(verdicts(list(samples({"cold": 20.0, "megacache": 4.0}))))
    assert judged[0].bars == (None, None, None)
    assert held(judged) == (0, 0)


def test_report_names_what_was_left_out() -> None:
    """A peer that is not installed is named with the reason."""
    assert "Left out: `fal`, for lack of Python package fal." in markdown(Results(facts=FACTS, samples=[]))


def test_missing_packages_and_programs_are_named() -> None:
    """A variant whose package or program is not there says so."""

    class Absent(Variant):
        packages = ("no_such_package",)
        programs = ("no-such-program",)

    assert Absent().missing() == "Python package no_such_package, program no-such-program"
    assert not VARIANTS["cold"].missing()


def test_figure_shows_the_median_run_in_all_its_parts() -> None:
    """The parts of a bar add up to the median, and its whisker spans all rounds."""
    (bar,) = figure.bars(list(samples({"copy": 5.0})), "gpt")
    assert sum(bar.parts.values()) == pytest.approx(bar.median)
    assert (bar.least, bar.median, bar.most) == pytest.approx((5.0, 5.5, 10.0))


def test_results_are_kept_and_read(tmp_path: Path) -> None:
    """What is written is read again; a file of another format is refused."""
    path = tmp_path / "new" / "cpu.json"
    results = Results(facts=FACTS, samples=list(samples(SECONDS)))
    write(path, results)
    assert read(path) == results
    path.write_text(json.dumps({"format": 1}))
    with pytest.raises(ValueError, match="format 1"):
        read(path)


@pytest.mark.parametrize("name", GPU_MODELS)
def test_models_are_the_same_in_every_build(name: str) -> None:
    """A model gives finite numbers, none of them by chance, and the same in a second build."""
    outputs = []
    for _ in range(2):
        case = build(name, size="quick", device="cpu")
        with torch.no_grad():
            outputs.append(case.model(*case.example))
    assert torch.equal(*outputs)
    assert outputs[0].isfinite().all()
    assert outputs[0].std() > 0


@pytest.mark.nightly
def test_first_outputs_are_measured_and_checked(tmp_path: Path) -> None:
    """A model is compiled and started warm in processes of their own: nothing is compiled again, every bit agrees."""
    bench = Bench(rounds=1, quick=True, folder=tmp_path, models=("gpt",), variants=("copy",))
    (sample,) = first_output.measure(bench)
    assert isinstance(sample, Sample)
    values = sample.values
    assert (values["fx_hit"], values["fx_miss"], values["built files"], values["same output"]) == (1, 0, 0, 1)
    assert values["total"] == pytest.approx(sum(values[stage] for stage in first_output.STAGES))


@pytest.mark.parametrize("content", get_args(Content))
def test_synthetic_cache_is_published_and_loaded(content: Content, tmp_path: Path) -> None:
    """What stands for a cache in the sections on time and memory is one that a warm start takes."""
    bench = Bench(rounds=1, quick=True, folder=tmp_path)
    write_corpus(tmp_path / "corpus", content, SMALLEST)
    with bench.place("disk") as place:
        options = {"corpus": str(tmp_path / "corpus"), "times": 1, "expected": "published"}
        assert bench.run("publish", {**place.options(), **options})["raw"] > SMALLEST
        assert bench.run("warm", {**place.options(), "expected": "loaded"})["raw"] > SMALLEST


def test_tables_of_a_run_that_was_cut_short() -> None:
    """A report is written of whatever was measured, with dashes for the rest."""
    values = {"raw": 1.0, "stored": 1.0, "total": 1.0, "torch": 0.0, "open": 0.0, "grown": 1.0, "kept": 1.0}
    some = [
        Sample(section=transfers.SECTION, case=f"{content}, disk", variant="warm", round=0, values=values)
        for content in ("text", "binary")
    ]
    assert "| binary, disk | 1.00 | 0.00 | 1.00 | - |" in markdown(Results(facts=FACTS, samples=some))
    assert "Too little" in markdown(Results(facts=FACTS, samples=some[:1]))
    rounds = [*samples({"megacache": 4.0})][:2] + [*samples({"copy": 5.0})][2:]
    (verdict,) = verdicts(rounds)
    assert verdict.of_copy is None


def test_imports_are_told_beside_that_of_click() -> None:
    """Each command has its median and its share of importing click, round by round."""
    seconds = {imports.BASE: 0.040, "import megacache": 0.020}
    some = [
        Sample(section=imports.SECTION, case=imports.CASE, variant=name, round=turn, values={"cpu": one * (turn + 1)})
        for turn in range(2)
        for name, one in seconds.items()
    ]
    told = markdown(Results(facts=FACTS, samples=some))
    assert "| `import megacache` | 30 | 20 to 40 | 0.50 |" in told
    assert "--help" not in told
