"""Section D: requests that reach an S3 server."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from examples.benchmark.bench import Bench, Place
from examples.benchmark.corpus import SMALLEST, write_corpus
from examples.benchmark.samples import Sample, Step, noted
from examples.benchmark.transfers import corpus_size
from tests.kit.servers.moto import MotoServer

SECTION = "requests"
METHODS = ("LIST", "HEAD", "GET", "PUT")
_CASES = ("one artifact", "large")
_CALLS = ("warm, miss", "publish, published", "warm, loaded", "publish, covered", "publish, unchanged")


def planned(bench: Bench) -> Sequence[Step]:
    """List the calls whose requests are counted, once; none without a server of S3."""
    return [Step(SECTION, case, call, 0) for case in _CASES for call in _CALLS if bench.moto]


def measure(bench: Bench) -> Iterator[Sample]:
    """Count the requests of each verb, on a small cache of one chunk and on a large one."""
    if bench.moto is None:
        return
    with bench.scratch() as folder:
        for case, size in zip(_CASES, (SMALLEST, corpus_size(quick=bench.quick)), strict=True):
            corpus = folder / case
            write_corpus(corpus, "text", size)
            for call, counted in zip(_CALLS, _counts(bench, bench.moto, corpus), strict=True):
                yield _sample(case, call, counted)


def _counts(bench: Bench, moto: MotoServer, corpus: Path) -> Iterator[Counter[str]]:
    """Count for each of the calls, in their order."""
    with bench.place("s3") as place:
        yield _counted(moto, lambda: _warm(bench, place, "miss"))
        once = _counted(moto, lambda: _publish(bench, corpus, place, 1, "published"))
        yield once
        yield _counted(moto, lambda: _warm(bench, place, "loaded"))
        yield _counted(moto, lambda: _publish(bench, corpus, place, 1, "covered"))
    with bench.place("s3") as place:
        twice = _counted(moto, lambda: _publish(bench, corpus, place, 2, "unchanged"))
        yield twice - once


def _warm(bench: Bench, place: Place, expected: str) -> None:
    bench.run("warm", {**place.options(), "expected": expected})


def _publish(bench: Bench, corpus: Path, place: Place, times: int, expected: str) -> None:
    bench.run("publish", {**place.options(), "corpus": str(corpus), "times": times, "expected": expected})


def _counted(moto: MotoServer, action: Callable[[], None]) -> Counter[str]:
    moto.forget()
    action()
    return Counter(map(_method, moto.requests()))


def _method(line: str) -> str:
    return "LIST" if "list-type" in line else line.partition(" ")[0]


def _sample(case: str, variant: str, counted: Counter[str]) -> Sample:
    values = {"all": counted.total(), **{method: counted[method] for method in METHODS}}
    return noted(Sample(section=SECTION, case=case, variant=variant, round=0, values=values))
