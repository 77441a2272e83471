"""`megacache run`."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn

import click

from megacache._cli._options import chosen_url
from megacache._cli._output import say
from megacache._settings import AutostartSettings
from megacache.integrations._launch import attended_environment
from megacache.integrations._receipts import HitRate, collect

_TOO_FEW_HITS = 5
_NOT_FOUND, _NOT_STARTED = 127, 126
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


@click.command("run", context_settings={"allow_interspersed_args": False})
@click.option("--min-hit-rate", type=click.FloatRange(0, 1), metavar="SHARE", help="Fail if fewer lookups hit.")
@click.option("--warm-timeout", type=click.FloatRange(0), metavar="SECONDS", help="Wait so long for the store.")
@click.option("--publish-after", type=click.FloatRange(0), metavar="SECONDS", help="Publish after so long a quiet.")
@click.option("--exit-timeout", type=click.FloatRange(0), metavar="SECONDS", help="Delay the end by at most so long.")
@click.option("--read-only", is_flag=True, help="Publish nothing.")
@click.option("--quiet", "-q", is_flag=True, help="Tell only what goes wrong.")
@click.argument("url", metavar="URL")
@click.argument("program", metavar="-- PROGRAM [ARGUMENT]...", nargs=-1, required=True, type=click.UNPROCESSED)
def run_command(
    *,
    url: str,
    program: Sequence[str],
    min_hit_rate: float | None,
    read_only: bool,
    quiet: bool,
    **seconds: float | None,
) -> None:
    """Run any Python program warm, and publish what it compiles; the program is not changed.

    Every Python process that the program starts is attended to: it loads what fits before its first compilation, and
    publishes in the background once nothing was compiled for a while, and at its end. A process that fails publishes
    nothing at its end. Exit code, input, output and signals are the program's own.

    With --min-hit-rate a program that succeeds ends with 5 if its processes had fewer hits than that share of their
    lookups in PyTorch's caches, or none.

    \b
    Example:
      megacache run s3://bucket/flux/v1 -- python serve.py --port 8000
    """  # noqa: D301 - as click wants it
    program = program[program[0] == "--" :]
    if not program:
        raise click.UsageError("no program is given")
    found = shutil.which(program[0])
    if found is None:
        say("[bold red]error:[/] {} is not there, or is no program", program[0])
        sys.exit(_NOT_FOUND)
    given = {name: value for name, value in seconds.items() if value is not None}
    changes = {"MEGACACHE_URL": chosen_url(url), **({"MEGACACHE_READ_ONLY": "1"} if read_only else {})}
    settings = {**given, "log": "warning" if quiet else "info"}
    if min_hit_rate is None:
        _become(found, program, attended_environment(_settings(settings), changes))
    with tempfile.TemporaryDirectory(prefix="megacache-run-") as folder:
        environment = attended_environment(_settings({**settings, "receipts": folder}), changes)
        code = _wait(found, program, environment)
        if not code:
            code = _judged(collect(folder), min_hit_rate)
    _end_like(code)


def _settings(changes: Mapping[str, Any]) -> AutostartSettings:
    """Let options override variables."""
    return AutostartSettings.read().changed(**changes)


def _become(path: str, program: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    try:
        os.execve(path, list(program), environment)  # noqa: S606 - a program of the user's own
    except OSError as error:
        say("[bold red]error:[/] {} cannot be started: {}", path, error)
        sys.exit(_NOT_STARTED)


def _wait(path: str, program: Sequence[str], environment: Mapping[str, str]) -> int:
    """Run the program as a child that gets every signal meant for it."""
    try:
        child = subprocess.Popen(program, executable=path, env=environment)
    except OSError as error:
        say("[bold red]error:[/] {} cannot be started: {}", path, error)
        sys.exit(_NOT_STARTED)
    with _signals_forwarded(child):
        return child.wait()


@contextmanager
def _signals_forwarded(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    def forward(number: int, frame: FrameType | None) -> None:
        del frame
        # A terminal has told the child already: both are in its foreground.
        if number not in {signal.SIGINT, signal.SIGQUIT} or not sys.stdin.isatty():
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _judged(found: HitRate, least: float) -> int:
    if found.rate is None:
        say("[bold red]hit rate:[/] no graph was looked up, {} was asked for", least)
        return _TOO_FEW_HITS
    told = f"{found.rate:.3f}", found.hit, found.total, found.processes
    say("hit rate: {}: {} of {} lookups hit, in {} processes", *told)
    if found.rate >= least:
        return 0
    say("[bold red]error:[/] {} was asked for; `megacache.explain()` in the program says why it missed", least)
    return _TOO_FEW_HITS


def _end_like(code: int) -> NoReturn:
    """End with the exit code of the program, or by the signal that ended it."""
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code != signal.SIGKILL else None
        os.kill(os.getpid(), -code)
    sys.exit(code if code >= 0 else 128 - code)
