"""The command `megacache`: finds its subcommands, and turns faults into messages and exit codes."""

import difflib
import io
import sys
import traceback
from importlib import import_module
from typing import Any

import click

from megacache._cli.exit_codes import EXIT_BUG, EXIT_INTERRUPTED, exit_code_of
from megacache._version import __version__
from megacache.errors import MegacacheError

# A module is imported when its command is asked for: `--help` and completion, which a person waits for, need none.
COMMANDS = {
    "ls": ("ls", "List GPU types, environments and bundles in a cache."),
    "inspect": ("inspect", "Show what is in a bundle."),
    "verify": ("verify", "Read everything in a cache, and say whether it is sound."),
    "report": ("report", "Tell what a cache holds in figures."),
    "explain": ("explain", "Say whether a cache fits this machine, and if not, why."),
    "env": ("env", "Show the facts that decide which bundles fit this machine."),
    "cp": ("cp", "Copy a cache, or some environments of it."),
    "push": ("cp", "Copy the bundles of a local store to URL."),
    "pull": ("cp", "Copy the bundles under URL to a local store."),
    "export": ("export", "Write the artifacts of one environment into one file."),
    "import": ("export", "Publish a file that PyTorch saved, for this machine."),
    "compact": ("compact", "Merge bundles, so that a warm start makes fewer requests."),
    "gc": ("gc", "Delete what nobody reads any more."),
    "rm": ("rm", "Remove bundles, environments or a whole cache for good."),
    "quarantine": ("quarantine", "Take a bundle out of service for every reader."),
    "pin": ("pin", "Keep bundles, whatever `gc` and `compact` are asked for."),
    "keygen": ("keys", "Make a pair of keys: FILE to sign with, FILE.pub to trust."),
    "sign": ("keys", "Add a signature to what is published under URL."),
    "run": ("run", "Run any Python program warm, and publish what it compiles."),
    "sidecar": ("sidecar", "Run a server warm, and publish once it is ready."),
    "cache": ("cache", "Show or clear what this node has downloaded."),
    "demo": ("demo", "Show on a small model what a warm start is worth."),
    "completion": ("completion", "Print what makes a shell complete commands and options."),
}
"""Each command, its module, which may hold several, and its first sentence."""


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
        module = import_module(f"megacache._cli.commands.{COMMANDS[cmd_name][0]}")
        found: click.Command = getattr(module, f"{cmd_name}_command")
        return found

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """List the subcommands without loading them."""
        del ctx
        with formatter.section("Commands"):
            formatter.write_dl([(name, sentence) for name, (_, sentence) in COMMANDS.items()])

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
            from megacache._store import without_secrets

            error.message = without_secrets(error.message)  # type: ignore[misc] # final only for type checkers
            raise
        except MegacacheError as error:
            from megacache._cli.output import say

            say("[bold red]error:[/] {}", error)
            ctx.exit(exit_code_of(error))
        except (KeyboardInterrupt, click.Abort):
            from megacache._cli.output import say

            say("interrupted")
            ctx.exit(EXIT_INTERRUPTED)


def _nearest(word: str) -> str | None:
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
        from megacache._store import without_secrets

        sys.stderr.write(without_secrets(traceback.format_exc()))
        sys.exit(EXIT_BUG)
