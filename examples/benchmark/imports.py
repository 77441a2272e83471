"""Section E: what it costs to import megacache, and to ask its command for help, beside importing click."""

import resource
import subprocess
import sys
from collections.abc import Iterator, Sequence

from examples.benchmark.bench import Bench
from examples.benchmark.samples import Sample, Step, noted, rotated

SECTION = "imports"
CASE = "CPU time of a fresh interpreter"
BASE = "import click"
COMMANDS = {
    "python -c pass": ("-c", "pass"),
    BASE: ("-c", "import click"),
    "import megacache": ("-c", "import megacache"),
    "megacache --help": ("-m", "megacache", "--help"),
}
_LIMIT = 60.0


def planned(bench: Bench) -> Sequence[Step]:
    """List each command, once a round."""
    return [Step(SECTION, CASE, name, turn) for turn in range(bench.rounds) for name in rotated(tuple(COMMANDS), turn)]


def measure(bench: Bench) -> Iterator[Sample]:
    """Run each command once unmeasured, so that all are compiled to bytecode and in the page cache, then in turn."""
    for command in COMMANDS.values():
        _cpu_seconds(command)
    for step in planned(bench):
        values = {"cpu": _cpu_seconds(COMMANDS[step.variant])}
        yield noted(Sample(section=SECTION, case=CASE, variant=step.variant, round=step.round, values=values))


def _cpu_seconds(command: Sequence[str]) -> float:
    """Give the seconds of user and system time that an interpreter takes."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    argv = [sys.executable, *command]
    subprocess.run(argv, stdout=subprocess.DEVNULL, timeout=_LIMIT, check=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
