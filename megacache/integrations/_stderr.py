"""megacache's log on stderr, where the program sets up none for it."""

import functools
import logging

_log = logging.getLogger("megacache")


def log_to_stderr(level: str) -> None:
    """Show messages of a level and above; calling it again changes the level."""
    _log.addHandler(_handler())
    _log.setLevel(level.upper())
    # A program that sets up logging itself would show each line twice.
    _log.propagate = False


def is_shown() -> bool:
    """Tell whether the program shows what megacache logs, by whatever handler."""
    handlers = (*_log.handlers, *logging.getLogger().handlers)
    return any(not isinstance(handler, logging.NullHandler) for handler in handlers)


@functools.cache
def _handler() -> logging.Handler:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("megacache: %(message)s"))
    return handler
