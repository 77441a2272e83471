"""The exit codes of the command line; `megacache --help` lists them all."""

from megacache.errors import MegacacheError, SettingsError, StoreError

EXIT_NO = 1
"""The answer is no: something is damaged, this machine would miss."""
EXIT_TOO_FEW_HITS = 5
"""The program ran, and its hit rate was too low."""
EXIT_BUG = 70
EXIT_INTERRUPTED = 130

_CODES: tuple[tuple[type[MegacacheError], int], ...] = (
    (SettingsError, 2),
    (StoreError, 3),
    (MegacacheError, 4),
)


def exit_code_of(error: MegacacheError) -> int:
    """Tell the exit code that stands for a fault."""
    return next(code for kind, code in _CODES if isinstance(error, kind))
