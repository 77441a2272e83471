"""The command line: click commands, and the one place where megacache prints."""

from megacache._cli.app import main

__all__ = ["main"]
