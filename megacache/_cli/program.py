"""Run a program as the user would: with its own signals and exit code."""

import math
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn, TypeVar

import click

from megacache._cli.output import say

Command = TypeVar("Command", bound=Callable[..., Any])

# As a shell has them.
_NOT_FOUND, _NOT_STARTED = 127, 126
_FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1, signal.SIGUSR2)


class ProgramCommand(click.Command):
    """Takes a program with options of its own: all words after `--`, or else after the URL."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Put a `--` before the program where there is none."""
        # click would take the program's options for its own.
        begin = self._program_begin(ctx, args)
        return super().parse_args(ctx, args if begin is None else [*args[:begin], "--", *args[begin:]])

    def _program_begin(self, ctx: click.Context, args: Sequence[str]) -> int | None:
        """Find the beginning of a program without `--` before it; None if none is needed."""
        words: list[str] = []
        options: list[str] = []
        position = 0
        while position < len(args) and args[position] != "--":
            arg = args[position]
            if arg.startswith("-") and arg != "-":
                options += [arg] if words else []
                position += self._takes_value(ctx, arg)
            elif not words:
                words.append(arg)
            elif options:
                raise click.UsageError(f"options go before the URL: {options[0]}", ctx)
            else:
                return position
            position += 1
        return None

    def _takes_value(self, ctx: click.Context, option: str) -> bool:
        params = [param for param in self.get_params(ctx) if isinstance(param, click.Option)]
        return any(option in param.opts and not param.is_flag for param in params)


class Finite(click.FloatRange):
    """Accepts a finite number in a range."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        """Refuse infinity and NaN, too."""
        number = float(super().convert(value, param, ctx))
        if not math.isfinite(number):
            self.fail(f"{value} is not a finite number.", param, ctx)
        return number


compact_above = click.option(
    "--compact-above", type=click.IntRange(1), metavar="N", help="Merge the bundles once there are more than so many."
)
program_argument = click.argument(
    "program", metavar="-- PROGRAM [ARGUMENT]...", nargs=-1, required=True, type=click.UNPROCESSED
)


def named(program: Sequence[str]) -> tuple[str, Sequence[str]]:
    """Find the program's file, and give the command without its `--`; end as a shell does if it cannot be executed."""
    command = program[program[0] == "--" :]
    if not command:
        raise click.UsageError("there is no program after `--`")
    path = shutil.which(command[0])
    if path is None:
        _not_executable(command[0])
    return path, command


def _not_executable(word: str) -> NoReturn:
    places = [word] if os.sep in word else [os.path.join(folder, word) for folder in os.get_exec_path()]  # noqa: PTH118
    if not any(map(os.path.exists, places)):
        say("[bold red]error:[/] the program {} was not found; check its name, or give its path", word)
        sys.exit(_NOT_FOUND)
    say("[bold red]error:[/] {} is not an executable file", word)
    sys.exit(_NOT_STARTED)


def become(path: str, command: Sequence[str], environment: Mapping[str, str]) -> NoReturn:
    """Replace this process by the program."""
    for number in (signal.SIGPIPE, signal.SIGXFSZ):  # Python ignores these, and a program would inherit that
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
    """Run the program as a child, with signals forwarded; a negative code is the signal that ended it."""
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
        # A parent learns the signal only from a process that dies of it; SIGKILL has no handler to restore.
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
        # A terminal sends these to its whole foreground, the child included.
        if number not in {signal.SIGINT, signal.SIGQUIT} or not _in_foreground():
            child.send_signal(number)

    before = {number: signal.signal(number, forward) for number in _FORWARDED}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _in_foreground() -> bool:
    """Tell whether a key on the terminal interrupts this process."""
    # Not by stdin, which may come from elsewhere.
    with suppress(OSError), open("/dev/tty", "rb", buffering=0) as terminal:  # noqa: PTH123 - a device
        return os.tcgetpgrp(terminal.fileno()) == os.getpgrp()
    return False
