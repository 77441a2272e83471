"""The options of the command."""

import argparse
from pathlib import Path

from examples.fleet.scenarios import SCENARIOS

_RESULTS = Path(__file__).parent / "results" / "fleet.json"
_NAMES = [one.name for one in SCENARIOS]


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    told = "Start a fleet of workers against one store; fail if anything is lost or a bar is missed."
    found = argparse.ArgumentParser(prog="python -m examples.fleet", description=told)
    found.add_argument("--workers", type=int, default=1_000, help="workers of each scenario")
    found.add_argument("--at-once", type=int, default=60, help="processes at work at once")
    found.add_argument("--window", type=float, default=120.0, help="seconds within which they are to start")
    found.add_argument("--speed", type=float, default=5.0, help="how many times faster than for real they compile")
    found.add_argument("--timeout", type=float, default=1_800.0, help="seconds after which a scenario is given up")
    found.add_argument("--scenarios", nargs="*", choices=_NAMES, default=_NAMES, help="which to run")
    found.add_argument("--no-sizes", dest="sizes", action="store_false", help="leave out the fleets of other sizes")
    found.add_argument("--results", type=Path, default=_RESULTS, help="the file for the numbers")
    return found
