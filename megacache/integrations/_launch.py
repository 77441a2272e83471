"""Give a program the environment in which it, and every Python that it starts, starts warm."""

from collections.abc import Mapping
from pathlib import Path

from megacache._settings import AutostartSettings, child_environment
from megacache.integrations import site

# Absolute, for the program may work in another folder.
_FOLDER = str(Path(next(iter(site.__path__))).resolve())


def autostart_environment(settings: AutostartSettings, changes: Mapping[str, str]) -> dict[str, str]:
    """Give this process's environment with some changes, and our `sitecustomize` before any other."""
    return child_environment({**settings.variables(), **changes}, python_path=_FOLDER)
