"""The environment that starts megacache in a program, and in every Python that this one starts."""

from collections.abc import Mapping
from pathlib import Path

from megacache._settings import AutostartSettings, child_environment
from megacache.integrations import site

_FOLDER = str(Path(next(iter(site.__path__))).resolve())


def autostart_environment(settings: AutostartSettings, changes: Mapping[str, str]) -> dict[str, str]:
    """Give this process's environment with what makes Python import `sitecustomize` of our folder first."""
    return child_environment({**settings.variables(), **changes}, python_path=_FOLDER)
