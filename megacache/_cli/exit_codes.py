"""The exit codes of the command line; `megacache --help` lists them all."""

from megacache.errors import MegacacheError, SettingsError, StoreError

EXIT_NO = 1
"""The answer is no: something is damaged or not there to verify, this machine would miss, a removal was declined."""
EXIT_USAGE = 2
"""Wrong usage or a wrong setting, or nothing there of that name; nothing was changed."""
EXIT_STORE = 3
"""The store did not answer, or refused."""
EXIT_UNUSABLE = 4
"""What is stored cannot be used, or PyTorch is missing or failed; `cp` and `export` still deliver the other bundles."""
EXIT_TOO_FEW_HITS = 5
"""The program ran and succeeded, and its hit rate was below `--min-hit-rate`."""
EXIT_BUG = 70
"""A bug in megacache; the traceback is on stderr."""
EXIT_INTERRUPTED = 130
"""Interrupted, as by Ctrl-C."""

# The first that fits counts: every fault is of the last class.
_CODES: tuple[tuple[type[MegacacheError], int], ...] = (
    (SettingsError, EXIT_USAGE),
    (StoreError, EXIT_STORE),
    (MegacacheError, EXIT_UNUSABLE),
)


def exit_code_of(error: MegacacheError) -> int:
    """Tell the exit code that stands for a fault."""
    return next(code for kind, code in _CODES if isinstance(error, kind))
