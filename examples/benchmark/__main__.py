"""Run the benchmark: print Markdown, and keep every sample as JSON."""

import argparse
import json
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path

from examples.benchmark import first_output, machine, requests, transfers
from examples.benchmark.bench import Bench
from examples.benchmark.report import markdown
from examples.benchmark.samples import Sample
from tests.servers.moto import serve

_SECTIONS: Mapping[str, Callable[[Bench], Iterator[Sample]]] = {
    "A": first_output.measure,
    "B": transfers.measure,
    "C": transfers.measure,
    "D": requests.measure,
}
_RESULTS = Path(__file__).parent / "results"
_FORMAT = 1


def main() -> None:
    """Measure what was asked for."""
    options = _parser().parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s")
    logging.getLogger("benchmark").setLevel(logging.INFO)
    rounds = 1 if options.quick else options.rounds
    facts = {"date": datetime.now(UTC).isoformat(timespec="seconds"), "command": _command(), "rounds": rounds}
    facts |= machine.facts()
    samples = _samples(options.only or "ABCD", rounds=rounds, quick=options.quick)
    _keep(_RESULTS / options.output, {"format": _FORMAT, **facts, "samples": [asdict(sample) for sample in samples]})
    print(markdown(samples, facts), end="")


def _samples(sections: str, *, rounds: int, quick: bool) -> list[Sample]:
    # B and C are two views of the same processes.
    measures = dict.fromkeys(_SECTIONS[section] for section in sections)
    with tempfile.TemporaryDirectory(prefix="megacache-benchmark-", ignore_cleanup_errors=True) as name:
        folder = Path(name)
        (folder / "moto").mkdir()
        with serve(folder / "moto") as moto:
            bench = Bench(rounds=rounds, quick=quick, folder=folder, moto=moto)
            return [sample for measure in measures for sample in measure(bench)]


def _keep(path: Path, document: Mapping[str, object]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document, indent=1) + "\n")
    fresh.replace(path)


def _command() -> str:
    return " ".join(["python -m examples.benchmark", *sys.argv[1:]])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.benchmark", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="samples of each variant (default: 5)")
    parser.add_argument("--only", choices=sorted(_SECTIONS), help="A first output, B time, C memory, D requests")
    parser.add_argument("--quick", action="store_true", help="one round of small cases, to see that it works")
    parser.add_argument("--output", default="cpu.json", help="name of the file in results/ (default: cpu.json)")
    return parser


if __name__ == "__main__":
    main()
