"""Sections B and C: what megacache takes in time and memory, beside the bare calls that it stands on."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, get_args

from examples.benchmark.bench import Bench, Place
from examples.benchmark.corpus import Content, write_corpus
from examples.benchmark.samples import Sample, Step, noted, rotated

SECTION = "transfers"
KINDS = ("disk", "s3")
TORCH = "torch"
"""In the place of a kind of store: what needs none."""

_SIZE, _QUICK_SIZE = 200_000_000, 20_000_000
_STEPS = (("warm", "download"), ("publish", "upload"))


def corpus_size(*, quick: bool) -> int:
    """Tell the bytes of the synthetic cache, before compression."""
    return _QUICK_SIZE if quick else _SIZE


def case_of(content: Content, kind: str) -> str:
    """Name a case."""
    return f"{content}, {kind}"


@dataclass(frozen=True, slots=True, kw_only=True)
class _Prepared:
    """One corpus, as files, as a blob and published."""

    corpus: Path
    blob: Path
    stores: Mapping[str, Place]
    keys: tuple[str, ...]
    """Of all objects of its bundle; they are named by their contents, thus alike in both stores."""

    @property
    def stored(self) -> Path:
        """Where the objects lie as files."""
        return Path(self.stores["disk"].url.removeprefix("file://"))


def planned(bench: Bench) -> Sequence[Step]:
    """List what is measured in each round."""
    return [Step(SECTION, case_of(content, kind), variant, turn) for content, kind, variant, turn in _steps(bench)]


def measure(bench: Bench) -> Iterator[Sample]:
    """Publish each corpus once, then do each step in a process of its own in each round."""
    with ExitStack() as stack:
        prepared = {content: _prepare(bench, stack, content) for content in get_args(Content)}
        for content, kind, variant, turn in _steps(bench):
            yield _sample(content, kind, variant, turn, _step(bench, variant, kind, prepared[content]))


def _steps(bench: Bench) -> Iterator[tuple[Content, str, str, int]]:
    for turn in range(bench.rounds):
        for content in get_args(Content):
            for variant in rotated(("load", "save"), turn):
                yield content, TORCH, variant, turn
            for kind in bench.kinds:
                # The two that are compared follow each other closely.
                for variant in (step for pair in rotated(_STEPS, turn) for step in rotated(pair, turn)):
                    yield content, kind, variant, turn


def _prepare(bench: Bench, stack: ExitStack, content: Content) -> _Prepared:
    folder = stack.enter_context(bench.scratch())
    corpus, blob = folder / "corpus", folder / "blob"
    write_corpus(corpus, content, corpus_size(quick=bench.quick))
    bench.run("save", {"corpus": str(corpus), "blob": str(blob)})
    stores = {kind: stack.enter_context(bench.place(kind)) for kind in bench.kinds}
    for place in stores.values():
        bench.run("publish", _publication(corpus, place))
    root = Path(stores["disk"].url.removeprefix("file://"))
    keys = tuple(str(path.relative_to(root)) for path in sorted(root.rglob("*")) if path.is_file())
    return _Prepared(corpus=corpus, blob=blob, stores=stores, keys=keys)


def _bare(variant: str, ready: _Prepared) -> dict[str, Any]:
    return {"blob": str(ready.blob)} if variant == "load" else {"corpus": str(ready.corpus), "blob": None}


def _step(bench: Bench, variant: str, kind: str, ready: _Prepared) -> dict[str, Any]:
    if kind == TORCH:
        return bench.run(variant, _bare(variant, ready))
    if variant == "warm":
        return bench.run(variant, {**ready.stores[kind].options(), "expected": "loaded"})
    if variant == "download":
        return bench.run(variant, {**ready.stores[kind].options(), "keys": ready.keys})
    with bench.place(kind) as place:
        if variant == "publish":
            return bench.run(variant, _publication(ready.corpus, place))
        return bench.run(variant, {**place.options(), "source": str(ready.stored), "keys": ready.keys})


def _publication(corpus: Path, place: Place) -> dict[str, Any]:
    return {**place.options(), "corpus": str(corpus), "times": 1, "expected": "published"}


def _sample(content: Content, kind: str, variant: str, turn: int, answer: Mapping[str, Any]) -> Sample:
    values = {name: value for name, value in answer.items() if name not in {"started", "begun"}}
    case = case_of(content, kind)
    return noted(Sample(section=SECTION, case=case, variant=variant, round=turn, values=values))
