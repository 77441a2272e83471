"""The command `megacache`: finds its subcommands, and turns faults into messages and exit codes."""

import difflib
import io
import sys
import traceback
from importlib import import_module
from typing import Any

import click

from megacache._cli.exit_codes import EXIT_BUG, EXIT_INTERRUPTED, exit_code_of
from megacache._cli.output import say
from megacache._store import without_secrets
from megacache._version import __version__
from megacache.errors import MegacacheError

COMMANDS = {
    "ls": "ls",
    "inspect": "inspect",
    "verify": "verify",
    "explain": "explain",
    "env": "env",
    "cp": "cp",
    "push": "cp",
    "pull": "cp",
    "export": "export",
    "import": "export",
    "rm": "rm",
    "quarantine": "quarantine",
    "keygen": "keys",
    "sign": "keys",
    "run": "run",
    "sidecar": "sidecar",
    "demo": "demo",
    "completion": "completion",
}
"""Each command and its module, which is imported when the command is asked for; a module may hold several."""


class Commands(click.Group):
    """Loads a subcommand when it is named, and suggests one if the name is misspelt."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name all subcommands."""
        del ctx
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Load a subcommand."""
        del ctx
        if cmd_name not in COMMANDS:
            return None
        module = import_module(f"megacache._cli.commands.{COMMANDS[cmd_name]}")
        found: click.Command = getattr(module, f"{cmd_name}_command")
        return found

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the subcommand that is meant."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            near = _nearest(args[0].lower())
            message = f"{error.message.rstrip('.')}. Did you mean {near!r}?" if near else error.message
            raise click.UsageError(message, ctx) from None

    def invoke(self, ctx: click.Context) -> Any:
        """Run the subcommand."""
        try:
            return super().invoke(ctx)
        except click.ClickException as error:  # click repeats the words that it did not expect
            error.message = without_secrets(error.message)  # type: ignore[misc] # final only for type checkers
            raise
        except MegacacheError as error:
            say("[bold red]error:[/] {}", error)
            ctx.exit(exit_code_of(error))
        except (KeyboardInterrupt, click.Abort):
            say("interrupted")
            ctx.exit(EXIT_INTERRUPTED)


def _nearest(word: str) -> str | None:
    """Find the command that was meant by a misspelt one, if it is like any."""
    swapped = [name for name in COMMANDS if sorted(name) == sorted(word)]  # `sl`, which is too short to be like `ls`
    return next(iter(swapped or difflib.get_close_matches(word, COMMANDS, n=1)), None)


@click.group(
    cls=Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 120},
    no_args_is_help=True,
)
@click.version_option(__version__, prog_name="megacache")
def app() -> None:
    """Compile once, start warm everywhere: look after torch.compile caches in object stores.

    URL is that of one cache, such as s3://bucket/flux/v1, gs://… or a folder. Data goes to stdout, all else to stderr;
    NO_COLOR is honoured. Options of a store, such as an endpoint, come from the usual variables of its client and of
    fsspec (AWS_ENDPOINT_URL, FSSPEC_S3, …) or from a file given by --storage-options.

    \b
    Exit codes:
      0    done, or the answer is yes
      1    the answer is no: damaged, would miss
      2    wrong usage or setting, or nothing there of that name
      3    the store did not answer, or refused
      4    what is stored cannot be used, or PyTorch is missing or failed
      5    the program ran, and its hit rate was too low
      70   a bug in megacache
      130  interrupted
    """  # noqa: D301 - click keeps the lines after this mark as they are


def main() -> None:
    """Run the command line; it ends the process."""
    # A label may hold what the encoding of a terminal lacks.
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    try:
        app(prog_name="megacache")
    except Exception:  # noqa: BLE001 - Python would exit with 1, which is an answer here
        sys.stderr.write(without_secrets(traceback.format_exc()))
        sys.exit(EXIT_BUG)
