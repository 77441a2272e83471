"""Run a program as the user would: its signals, its exit code, its death are its own."""

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from megacache._cli._output import say

Command = TypeVar("Command", bound=Callable[..., Any])

_NOT_FOUND, _NOT_STARTED = 127, 126
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class ProgramCommand(click.Command):
    """Takes a program with options of its own: all that comes after `--`, or else after the URL."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Tell the command's own options from those of the program."""
        ctx.allow_interspersed_args = "--" in args
        return super().parse_args(ctx, args)


program_argument = click.argument(
    "program", metavar="-- PROGRAM [ARGUMENT]...", nargs=-1, required=True, type=click.UNPROCESSED
)


def named(program: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Find the program's file, and give the command without the `--` before it; end as a shell does if it is none."""
    command = program[program[0] == "--" :]
    if not command:
        raise click.UsageError("no program is given")
    path = shutil.which(command[0])
    if path is None:
        say("[bold red]error:[/] {} is not there, or is no program", command[0])
        sys.exit(_NOT_FOUND)
    return path, command


def become(path: str, command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Give this process to the program."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # which Python ignores, and a program inherits
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(path, list(command), environment)  # noqa: S606 - a program of the user's own
    except OSError as error:
        _not_started(path, error)


def wait_for(
    path: str,
    command: Sequence[str],
    environment: Mapping[str, str],
    meanwhile: Callable[["subprocess.Popen[bytes]"], None] = lambda _: None,
) -> int:
    """Run the program as a child that gets every signal meant for it; a negative code is the signal that ended it."""
    try:
        child = subprocess.Popen(command, executable=path, env=environment)
    except OSError as error:
        _not_started(path, error)
    with _signals_forwarded(child):
        meanwhile(child)
        return child.wait()


def end_like(code: int) -> NoReturn:
    """End with the exit code of a program, or by the signal that ended it."""
    if code < 0:
        if -code != signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code if code >= 0 else 128 - code)


def _not_started(path: str, error: OSError) -> NoReturn:
    say("[bold red]error:[/] {} cannot be started: {}", path, error)
    sys.exit(_NOT_STARTED)


@contextmanager
def _signals_forwarded(child: "subprocess.Popen[bytes]") -> Iterator[None]:
    def forward(number: int, frame: FrameType | None) -> None:
        del frame
        # A terminal has told the child already: both are in its foreground.
        if number not in {signal.SIGINT, signal.SIGQUIT} or sys.stdin is None or not sys.stdin.isatty():
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
