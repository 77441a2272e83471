"""Python imports this at its start, below `megacache run`; it then gives way to the module that it hides."""

import importlib.machinery
import importlib.util
import os
import sys

import megacache_on_compile  # type: ignore[import-not-found]  # lies beside this file, in a folder that is on the path

megacache_on_compile.watch()

_FOLDER = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib costs milliseconds at each start
sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != _FOLDER]  # noqa: PTH100
_hidden = importlib.machinery.PathFinder.find_spec(__name__, sys.path)
if _hidden is not None and _hidden.loader is not None:
    _module = importlib.util.module_from_spec(_hidden)
    sys.modules[__name__] = _module
    _hidden.loader.exec_module(_module)
