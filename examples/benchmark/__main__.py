"""Run the benchmark: `python -m examples.benchmark [--device cpu|cuda|all] [--budget SECONDS] …`; `--help` says more.

The models run on the GPU if torch sees one, else on the CPU. Tables are printed; `gpu.json` or `cpu.json` has every
sample so far after each process, and names what was left out.
"""

# ruff: noqa: E402 - what is imported counts, the clock included

import time

BEGUN = time.monotonic()

import argparse
import logging
import math
import signal
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from examples.benchmark import figure, first_output, imports, machine, ptxas, redis_server, requests, transfers
from examples.benchmark.agenda import Record, Section
from examples.benchmark.bench import Bench, OutOfTimeError
from examples.benchmark.models import GPU_MODELS, MODELS
from examples.benchmark.options import parsed, sections
from examples.benchmark.report import markdown
from examples.benchmark.results import Results
from examples.benchmark.variants import VARIANTS, missing
from tests.kit.servers.moto import serve

_SECTIONS: Mapping[str, Section] = {"A": first_output, "B": transfers, "C": transfers, "D": requests, "E": imports}
_ON_S3: Mapping[Section, str] = {transfers: "transfers, s3", requests: "requests"}
"""What other sections measure by the same means as the variant on S3, as it is named when it is left out."""
_S3 = "megacache-s3"
_CLOSING_SECONDS = 10.0
"""What servers, tables and the figure may take at the end, out of a budget; less of a small one."""
_log = logging.getLogger("benchmark")


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what was asked for on each device, and give the exit status: 1 if anything failed."""
    options = parsed(argv)
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s")
    _log.setLevel(logging.INFO)
    deadline = _deadline(options.budget)
    failed = [_run(options, device, deadline) for device in options.devices]
    if not machine.gpu():
        print("\nNo GPU here (`torch.cuda.is_available()` is false): the models were compiled for the CPU only.")
    return int(any(failed))


def _deadline(budget: float | None) -> float:
    return math.inf if budget is None else BEGUN + budget - min(_CLOSING_SECONDS, budget / 10)


def _run(options: argparse.Namespace, device: str, deadline: float) -> bool:
    """Measure on one device, and tell whether anything failed."""
    # B and C are two views of the same processes.
    chosen = tuple(dict.fromkeys(_SECTIONS[letter] for letter in sections(options, device)))
    lacking = _lacking(options, chosen)
    for name, reason in lacking.items():
        _log.warning("left out: %s, %s", name, reason)
    with _bench(options, device, chosen, deadline) as bench:
        record = Record(
            path=options.folder / ("gpu.json" if device == "cuda" else "cpu.json"),
            facts=_facts(device) | {"rounds": bench.rounds},
            planned=[step for section in chosen for step in section.planned(bench)],
            lacking=lacking,
            budget=options.budget,
        )
        record.write()
        with suppress(OutOfTimeError):
            for section in chosen:
                for found in section.measure(bench):
                    record.add(found)
    _tell(record.results(), record.path)
    return record.failed


def _lacking(options: argparse.Namespace, chosen: Sequence[Section]) -> Mapping[str, str]:
    """Name what cannot be measured here, with the reason."""
    absent = missing()
    named = {name: name for name in options.variants if first_output in chosen}
    named |= {part: _S3 for section, part in _ON_S3.items() if section in chosen}
    return {part: f"for lack of {absent[variant]}" for part, variant in named.items() if variant in absent}


@contextmanager
def _bench(options: argparse.Namespace, device: str, chosen: Sequence[Section], deadline: float) -> Iterator[Bench]:
    """Start the servers that are used, and no other."""
    variants = tuple(name for name in VARIANTS if name in options.variants and name not in missing())
    used = {*(variants if first_output in chosen else ()), *(_S3 for section in chosen if section in _ON_S3)}
    served = used - missing().keys()
    with ExitStack() as stack:
        prefix = "megacache-benchmark-"
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)))
        for name in ("moto", "ptxas"):
            (folder / name).mkdir()
        models = GPU_MODELS if device == "cuda" else MODELS
        yield Bench(
            rounds=1 if options.quick else options.rounds,
            quick=options.quick,
            folder=folder,
            moto=stack.enter_context(serve(folder / "moto")) if _S3 in served else None,
            redis_url=stack.enter_context(redis_server.serve(folder / "redis")) if "redis" in served else "",
            models=tuple(name for name in models if name in options.models),
            variants=variants,
            device=device,
            deadline=deadline,
            variables=ptxas.wrapped(folder / "ptxas") if device == "cuda" else {},
        )


def _tell(results: Results, path: Path) -> None:
    """Print the tables, and write them beside the samples, with a figure of the first outputs."""
    text = markdown(results)
    path.with_suffix(".md").write_text(text)
    print(text, end="")
    if not results.of(first_output.SECTION):
        return
    if find_spec("matplotlib") is None:
        print("\nNo figure: matplotlib is not installed.")
        return
    figure.draw(results, [path.with_suffix(".svg"), path.with_suffix(".png")])


def _facts(device: str) -> dict[str, Any]:
    found = dict(machine.facts())
    command = " ".join(["python -m examples.benchmark", *sys.argv[1:]])
    name = found["gpu"] if device == "cuda" else f"{found['cpu']}, {found['cores']} cores"
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "command": command, "device_name": name, **found}


if __name__ == "__main__":
    # Whoever is terminated ends the processes and servers that he started, too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    sys.exit(main())
