"""Start a module of megacache in a process of its own, which finds its imports where this one does."""

import json
import sys

_PROGRAM = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1));"
    " runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)


def child_command(module: str, *arguments: str) -> list[str]:
    """Give the command line that runs a module.

    `python -m` would look in the working folder first, which may hold a `torch` of its own, such as a checkout.
    """
    return [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path), module, *arguments]
