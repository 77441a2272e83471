"""Section D: requests that reach an S3 server."""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from examples.benchmark.bench import Bench, Place
from examples.benchmark.corpus import SMALLEST, write_corpus
from examples.benchmark.samples import Sample, noted
from examples.benchmark.transfers import corpus_size

SECTION = "requests"
METHODS = ("LIST", "HEAD", "GET", "PUT")


def measure(bench: Bench) -> Iterator[Sample]:
    """Count the requests of each verb, on a small cache of one chunk and on a large one."""
    with bench.scratch() as folder:
        for case, size in (("one artifact", SMALLEST), ("large", corpus_size(quick=bench.quick))):
            corpus = folder / case
            write_corpus(corpus, "text", size)
            for variant, counted in _counts(bench, corpus):
                yield _sample(case, variant, counted)


def _counts(bench: Bench, corpus: Path) -> Iterator[tuple[str, Counter[str]]]:
    with bench.place("s3") as place:
        yield "warm, miss", _counted(bench, lambda: _warm(bench, place, "miss"))
        once = _counted(bench, lambda: _publish(bench, corpus, place, 1, "published"))
        yield "publish, published", once
        yield "warm, loaded", _counted(bench, lambda: _warm(bench, place, "loaded"))
        yield "publish, covered", _counted(bench, lambda: _publish(bench, corpus, place, 1, "covered"))
    with bench.place("s3") as place:
        twice = _counted(bench, lambda: _publish(bench, corpus, place, 2, "unchanged"))
        yield "publish, unchanged", twice - once


def _warm(bench: Bench, place: Place, expected: str) -> None:
    bench.run("warm", {**place.options(), "expected": expected})


def _publish(bench: Bench, corpus: Path, place: Place, times: int, expected: str) -> None:
    bench.run("publish", {**place.options(), "corpus": str(corpus), "times": times, "expected": expected})


def _counted(bench: Bench, action: Callable[[], None]) -> Counter[str]:
    bench.moto.forget()
    action()
    return Counter(map(_method, bench.moto.requests()))


def _method(line: str) -> str:
    return "LIST" if "list-type" in line else line.partition(" ")[0]


def _sample(case: str, variant: str, counted: Counter[str]) -> Sample:
    values = {"all": counted.total(), **{method: counted[method] for method in METHODS}}
    return noted(Sample(section=SECTION, case=case, variant=variant, round=0, values=values))
