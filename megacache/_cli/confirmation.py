"""Ask before a plan is applied."""

import sys

import click

from megacache._cli.exit_codes import EXIT_NO
from megacache._cli.output import say
from megacache.errors import SettingsError


def ask(question: str, otherwise: str) -> None:
    """Go on if the answer is yes; else say what was not done, and end the command.

    Raises `SettingsError` where nobody can be asked.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise SettingsError(f"{otherwise}: there is no terminal to ask on", hint="give --yes")
    if not click.confirm(question, err=True):
        say("{}", otherwise)
        click.get_current_context().exit(EXIT_NO)
