"""Python imports this as it starts below `megacache run`; the `sitecustomize` that it hides is imported next.

Every Python that the program starts reads it: one that is too old for megacache, as Python 2 is, skips the first step.
"""

import os
import sys

if sys.version_info >= (3, 11):  # noqa: UP036 - not only our Python reads this
    import megacache_on_compile  # type: ignore[import-not-found]  # lies beside this file, in a folder on the path

    megacache_on_compile.watch()

_FOLDER = os.path.dirname(os.path.abspath(__file__))  # noqa: PTH100, PTH120 - pathlib costs milliseconds at each start
sys.path[:] = [folder for folder in sys.path if os.path.abspath(folder) != _FOLDER]  # noqa: PTH100
# As long as it has the name, Python gives this module and looks for no other.
_own = sys.modules.pop(__name__)
try:
    import sitecustomize  # type: ignore[import-not-found]  # noqa: F401 - the one that comes next on the path
except ImportError as error:
    sys.modules[__name__] = _own
    if getattr(error, "name", __name__) != __name__:
        raise
