"""Start warm without another line of code: `import megacache.autostart`, or `python -m megacache.autostart serve.py`.

The cache is the one that `MEGACACHE_URL` names. The process loads what fits before its first compilation, and publishes
what it compiled in the background once nothing was compiled for a while, and when it ends, whether well or not. With
`python -m megacache.autostart`, as with `megacache run`, every Python that the program starts does so, too; with the
import, only the processes that execute it.
"""

import os
import sys
from collections.abc import Mapping, Sequence

from megacache._settings import AutostartSettings, Settings, child_environment
from megacache._store import lasting_url
from megacache.errors import MegacacheError
from megacache.integrations import autostart_environment, megacache_on_compile

_NAME = "megacache.autostart"


def main() -> None:
    """Become the Python that runs what the command line names: a file, `-m module` or `-c code`, and its arguments."""
    if len(sys.argv) < 2:  # noqa: PLR2004 - the name of this module, and what it is to run
        sys.exit("usage: python -m megacache.autostart (PROGRAM.py | -m MODULE | -c CODE) [ARGUMENT]...")
    # In place of this process: signals and exit code are the program's own.
    os.execve(sys.executable, [sys.executable, *_flags(), *sys.argv[1:]], _environment())  # noqa: S606


def _environment() -> Mapping[str, str]:
    """Give the environment of the program; if that cannot start warm, say why and give this process's own."""
    if sys.flags.ignore_environment or sys.flags.no_site:
        return _cold("with -I, -E or -S Python does not import megacache; start it without them")
    try:
        settings = Settings.read()
        changes = {"MEGACACHE_URL": lasting_url(settings.places(None))} if settings.url else {}
        return autostart_environment(AutostartSettings.read(), changes)
    except MegacacheError as error:
        return _cold(f"{type(error).__name__}: {error}")


def _cold(why: str) -> Mapping[str, str]:
    sys.stderr.write(f"megacache: this program starts cold: {why}\n")
    return child_environment({})


def _flags() -> Sequence[str]:
    """Give the options of this interpreter: what comes before `-m megacache.autostart`."""
    words = sys.orig_argv[1 : len(sys.orig_argv) - len(sys.argv[1:])]
    if words[-1] == _NAME:  # else the two are one word already, as in -mmegacache.autostart
        words[-2:] = ["".join(words[-2:])]
    *flags, last = words
    others = last.removesuffix(f"m{_NAME}")  # as the -u in -um
    return flags if others in {"-", last} else [*flags, others]


if __name__ == "__main__":
    main()
else:  # a program has imported it
    megacache_on_compile.watch()
