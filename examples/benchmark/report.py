"""The results as one Markdown document."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, get_args

from examples.benchmark import first_output, imports, requests, transfers
from examples.benchmark.corpus import Content
from examples.benchmark.results import Results
from examples.benchmark.samples import Figure, Sample, series, value
from examples.benchmark.standings import first_outputs
from examples.benchmark.tables import number, table
from examples.benchmark.transfers import KINDS, TORCH, case_of

_MEGABYTE = 1e6
_TRANSFERS = """\
`text` stands for the artifacts of CPU graphs, {text} as stored; `binary` for contents that do not compress, as in
cubins, {binary}.

- own: megacache's seconds less those of its stages `torch` and `load`, in which PyTorch works; at a publication the
  former also holds megacache's digests and its reading of the environment, which `extra` counts
- bare: reading or writing the same stored bytes by the same client, on disk as durably as megacache writes; opening it
  included
- moving: own and bare without opening the store, which means importing its client
- PyTorch alone: its own call on one blob, in a process of its own
- extra: megacache's seconds in all, less bare and PyTorch alone"""


def markdown(results: Results) -> str:
    """Write the whole document."""
    sections: Mapping[str, Callable[[Sequence[Sample]], Iterator[str]]] = {
        first_output.SECTION: first_outputs,
        transfers.SECTION: _transfers,
        requests.SECTION: _requests,
        imports.SECTION: _imports,
    }
    parts = [_head(results.facts)]
    for name, write in sections.items():
        if found := results.of(name):
            parts += write(found)
    return "\n\n".join(parts) + "\n"


def _head(facts: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in facts["versions"].items())
    machine = f"{facts['cpu']}, {facts['cores']} cores, {facts['memory_gb']} GB, GPU: {facts['gpu'] or 'none'}"
    notes = (f"\n\nLeft out: `{name}`, {reason}." for name, reason in facts["left_out"].items())
    return (
        f"# Benchmark of {facts['date']}\n\n"
        f"`{facts['command']}` at commit {facts['commit']} on {machine}; "
        f"models on {facts['device_name']}; {versions}.\n\n"
        f"Medians of {facts['rounds']} round(s), in which the variants took turns; ratios are the medians of the "
        f"ratios of each round. S3 is moto on the loopback interface of the same machine.{''.join(notes)}"
    )


def _transfers(samples: Sequence[Sample]) -> Iterator[str]:
    if not all(
        series(samples, case_of(content, "disk"), "warm", value("raw")).by_round for content in get_args(Content)
    ):
        yield "## What megacache adds to a cache\n\nToo little of it was measured for the tables."
        return
    stored = {content: _one(samples, case_of(content, "disk"), "warm", "stored") for content in get_args(Content)}
    raw = _one(samples, case_of("text", "disk"), "warm", "raw")
    yield f"## What megacache adds to a cache of {raw / _MEGABYTE:.0f} MB"
    yield _TRANSFERS.format(**{name: f"{size / _MEGABYTE:.1f} MB" for name, size in stored.items()})
    yield "### Time of warm, in seconds"
    yield table(_TIME_HEADER, (_time_row(samples, c, k, _WARM) for c in get_args(Content) for k in KINDS))
    yield "### Time of publish, in seconds"
    yield table(_TIME_HEADER, (_time_row(samples, c, k, _PUBLISH) for c in get_args(Content) for k in KINDS))
    yield "### Memory above that before the call, divided by the size of the cache"
    header = ("call", *(f"{content}, {kind}" for content in get_args(Content) for kind in (TORCH, *KINDS)))
    verbs = (("warm", "load"), ("publish", "save"))
    yield table(header, (_memory_row(samples, verb, f, raw) for verb in verbs for f in ("grown", "kept")))


_TIME_HEADER = (
    "cache, store",
    "in all",
    "PyTorch's",
    "own",
    "bare",
    "own ÷ bare",
    "own, moving",
    "÷ bare, moving",
    "PyTorch alone",
    "extra",
    "in all ÷ (bare + alone)",
)
_Verb = tuple[str, str, str, Figure, Figure]


def _sum(*names: str) -> Figure:
    return lambda values: sum(values.get(name, 0.0) for name in names)


_WARM: _Verb = ("warm", "download", "load", _sum("torch", "load"), _sum("load"))
_PUBLISH: _Verb = ("publish", "upload", "save", _sum("torch"), _sum("save"))


def _time_row(samples: Sequence[Sample], content: Content, kind: str, verb: _Verb) -> tuple[str, ...]:
    name, transfer, call, of_torch, alone = verb
    case = case_of(content, kind)
    total, torch = series(samples, case, name, value("total")), series(samples, case, name, of_torch)
    opening = series(samples, case, name, _sum("open"))
    bare = series(samples, case, transfer, _sum("open", "transfer"))
    moving = series(samples, case, transfer, value("transfer"))
    lone = series(samples, case_of(content, TORCH), call, alone)
    own = total - torch
    figures = (total, torch, own, bare, own / bare, own - opening, (own - opening) / moving, lone)
    return (case, *map(number, figures), number(total - bare - lone), number(total / (bare + lone)))


def _memory_row(samples: Sequence[Sample], verb: tuple[str, str], figure: str, raw: float) -> tuple[str, ...]:
    def cell(content: Content, kind: str) -> str:
        name = verb[1] if kind == TORCH else verb[0]
        return number(series(samples, case_of(content, kind), name, lambda values: values[figure] / raw))

    said = {"grown": "peak", "kept": "kept afterwards"}[figure]
    return (f"{verb[0]}, {said}", *(cell(content, kind) for content in get_args(Content) for kind in (TORCH, *KINDS)))


def _requests(samples: Sequence[Sample]) -> Iterator[str]:
    yield "## Requests, as counted by the S3 server"
    yield table(
        ("cache, call", "requests", *requests.METHODS),
        ((f"{s.case}: {s.variant}", *(str(int(s.values[m])) for m in ("all", *requests.METHODS))) for s in samples),
    )


def _imports(samples: Sequence[Sample]) -> Iterator[str]:
    base = series(samples, imports.CASE, imports.BASE, value("cpu"))
    found = {name: series(samples, imports.CASE, name, value("cpu")) for name in imports.COMMANDS}
    yield "## CPU time of a fresh interpreter, in milliseconds"
    yield table(
        ("command", "median", "least to most", f"÷ `{imports.BASE}`"),
        (
            (
                f"`{name}`",
                f"{one.median * 1000:.0f}",
                " to ".join(f"{end * 1000:.0f}" for end in one.span),
                number(ratio),
            )
            for name, one in found.items()
            if (ratio := one / base).by_round
        ),
    )


def _one(samples: Sequence[Sample], case: str, variant: str, name: str) -> float:
    return series(samples, case, variant, value(name)).median
