"""The command line: click commands, and the one place where megacache prints."""

from megacache._cli._app import main

__all__ = ["main"]
