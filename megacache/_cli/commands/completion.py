"""`megacache completion`."""

import click
from click.shell_completion import get_completion_class

from megacache._cli.output import print_text


@click.command("completion")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion_command(*, shell: str) -> None:
    """Print what makes a shell complete commands and options.

    \b
    Example:
      megacache completion bash >> ~/.bashrc
    """  # noqa: D301 - as click wants it
    found = get_completion_class(shell)
    app = click.get_current_context().find_root().command
    if found is not None:
        # click makes the name of the variable from that of the program.
        print_text(found(app, {}, "megacache", "_MEGACACHE_COMPLETE").source())
