"""Start a fleet of workers against one store: `python -m examples.fleet [--workers 1000]`; `--help` says more.

The exit status is 1 if a bar is missed. `results/fleet.json` gets the numbers after each scenario; tables and a figure
go beside it.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from examples.benchmark.machine import facts
from examples.fleet import figure
from examples.fleet.fleet import Fleet, Terms, fleet
from examples.fleet.measures import bars, measured
from examples.fleet.options import parser
from examples.fleet.scenarios import MODELS, SCENARIOS, Scenario
from examples.fleet.table import markdown

_SIZES = (1, 10, 100, 300)
_GROWING = next(one for one in SCENARIOS if one.name == "single-flight")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the scenarios, and give the exit status."""
    options = parser().parse_args(argv)
    with tempfile.TemporaryDirectory(prefix="megacache-fleet-", ignore_cleanup_errors=True) as folder:
        cache = Path(folder, "inductor")
        cache.mkdir()
        with fleet(Path(folder), MODELS, cache) as started:
            return _run(started, options)


def _run(started: Fleet, options: argparse.Namespace) -> int:
    terms = Terms(
        workers=options.workers,
        at_once=options.at_once,
        window=options.window,
        speed=options.speed,
        seconds=options.timeout,
    )
    unique = {version: _unique(started, version, terms) for version in MODELS}
    document: dict[str, Any] = {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": " ".join(["python -m examples.fleet", *(sys.argv[1:])]),
        **facts(),
        "workers_at_once": options.at_once,
        "window": options.window,
        "speed": options.speed,
        "compiled_for_real": {one.model: one.seconds for one in started.recorded},
        "scenarios": {},
        "sizes": [],
    }
    missed = 0
    for scenario in SCENARIOS:
        if scenario.name in options.scenarios:
            begun = time.monotonic()
            outcome = started.run(scenario, terms)
            found = measured(outcome, unique)
            judged = list(bars(outcome, found))
            missed += sum(not one.held for one in judged)
            told = {"told": scenario.told, **found, "bars": {one.name: [one.told, one.held] for one in judged}}
            document["scenarios"][scenario.name] = told
            _say(
                "{}: {:.0f} s, {} of {} bars held",
                scenario.name,
                time.monotonic() - begun,
                sum(one.held for one in judged),
                len(judged),
            )
            _write(options.results, document)
    for workers in (size for size in _SIZES if options.sizes and size < options.workers):
        document["sizes"].append(_size(started, workers, terms, unique))
        _write(options.results, document)
    if document["sizes"] and _GROWING.name in document["scenarios"]:
        document["sizes"].append(_of_size(document["scenarios"][_GROWING.name]))
        _write(options.results, document)
    text = markdown(document)
    options.results.with_suffix(".md").write_text(text)
    print(text)
    if document["sizes"] and find_spec("matplotlib") is not None:
        figure.draw(document, options.results.with_suffix(".svg"))
    return int(missed > 0)


def _unique(started: Fleet, version: str, terms: Terms) -> int:
    """Let one worker publish alone, and tell what it leaves."""
    alone = Scenario(name=f"alone-{version}", told="one worker", wait=0.0, version=version)
    return started.run(alone, replace(terms, workers=1)).stored


def _size(started: Fleet, workers: int, terms: Terms, unique: Mapping[str, int]) -> Mapping[str, Any]:
    """Run a fleet of another size with single flight, in the same time for each worker."""
    window = terms.window * workers / terms.workers
    sized = replace(terms, workers=workers, window=window)
    found = measured(started.run(_GROWING, sized, name=f"size-{workers}"), unique)
    _say("{} workers: {} writes, {} reads", workers, found["writes"], found["reads"])
    return _of_size(found)


def _of_size(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return {name: found[name] for name in ("workers", "writes", "reads", "bytes_in", "bytes_out", "stored")}


def _write(path: Path, document: Mapping[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1) + "\n")


def _say(text: str, *values: object) -> None:
    print(text.format(*values), file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
