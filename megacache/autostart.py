"""Start warm without another line of code: `import megacache.autostart`, or `python -m megacache.autostart serve.py`.

The cache is the one that `MEGACACHE_URL` names. The first compilation of the process is preceded by a warm start; what
was compiled is published in the background once no compilation has begun for a while, and when the process ends. A
process that fails publishes nothing at its end. `python -m megacache.autostart` attends to every Python that the
program starts as well, as `megacache run` does; the import only to the processes that execute it.
"""

import os
import subprocess
import sys

from megacache._settings import AutostartSettings
from megacache.integrations._launch import autostart_environment
from megacache.integrations.site import megacache_on_compile


def main() -> None:
    """Become the Python that runs what the command line names: a file, `-m module` or `-c code`, and its arguments."""
    if len(sys.argv) < 2:  # noqa: PLR2004 - the name of this module, and what it is to run
        sys.exit("usage: python -m megacache.autostart (PROGRAM.py | -m MODULE | -c CODE) [ARGUMENT]...")
    python = [sys.executable, *subprocess._args_from_interpreter_flags()]  # type: ignore[attr-defined]
    os.execve(sys.executable, [*python, *sys.argv[1:]], autostart_environment(AutostartSettings.read(), {}))  # noqa: S606


if __name__ == "__main__":
    main()
else:
    megacache_on_compile.watch()
