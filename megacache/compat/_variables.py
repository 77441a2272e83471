"""The environment variables of b10-transfer: which still mean something, and what to use instead of the others.

They are another library's, and read here alone, so that `_settings` remains the list of megacache's own.
"""

import getpass
import logging
import os
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from megacache._runtime import kept
from megacache._settings import Settings
from megacache.errors import SettingsError

_log = logging.getLogger("megacache")

MB = 1 << 20
# As in b10-transfer.
_STORE = "/cache/model/compile_cache"
_CAP_MB = 1024
_MOST_SAVES = 100
_ON, _OFF = {"1", "true", "True"}, {"0", "false", "False", ""}

REPLACED: Mapping[str, str] = {
    "LOCAL_WORK_DIR": "nothing is unpacked on the way; leave it out",
    "LOCAL_SPACE_ARCHIVE_MULTIPLIER": "there is no archive to unpack; use MIN_LOCAL_SPACE_MB",
    "CLEANUP_LOCK_TIMEOUT_SECONDS": "nothing is locked; leave it out",
    "CLEANUP_INCOMPLETE_TIMEOUT_SECONDS": "an interrupted save leaves nothing that is visible; leave it out",
}
"""Variables that mean nothing here, and what to do instead."""

_warned: set[str] = kept(set())


@dataclass(frozen=True, slots=True, kw_only=True)
class Variables:
    """What b10-transfer's variables say."""

    url: str | None
    """The store: `MEGACACHE_URL`, else `B10FS_CACHE_DIR` if `BASETEN_FS_ENABLED` is on, else None."""
    max_bytes: int
    """`MAX_CACHE_SIZE_MB`, at most `MAX_CACHE_SIZE_CAP_MB`: what one save may write."""
    store_space: int
    """Bytes that must be free in a store on disk before a save: `MAX_CONCURRENT_SAVES` times `max_bytes`, at least
    `MIN_B10FS_SPACE_MB`; 0 if neither is set."""
    local_space: int
    """`MIN_LOCAL_SPACE_MB`: bytes that must be free where PyTorch's cache folder lies before a load; 0 if unset."""

    @classmethod
    def read(cls) -> Self:
        """Read the environment; raise `SettingsError` for a value that means nothing. Warn of the rest, once each."""
        for name in sorted(REPLACED.keys() & os.environ.keys()):
            _warn_once(name, f"{name} has no meaning for megacache: {REPLACED[name]}")
        max_bytes = MB * _capped("MAX_CACHE_SIZE_MB", _CAP_MB, most=_number("MAX_CACHE_SIZE_CAP_MB", _CAP_MB))
        saves = _capped("MAX_CONCURRENT_SAVES", 0, most=_MOST_SAVES)
        return cls(
            url=_url(),
            max_bytes=max_bytes,
            store_space=max(saves * max_bytes, MB * _number("MIN_B10FS_SPACE_MB", 0)),
            local_space=MB * _number("MIN_LOCAL_SPACE_MB", 0),
        )


def torch_folder() -> Path:
    """Name PyTorch's cache folder as `torch._inductor` does, without importing PyTorch and without making it."""
    given = os.environ.get("TORCHINDUCTOR_CACHE_DIR")
    if given:
        return Path(given)
    try:
        user = re.sub(r'[\\/:*?"<>|]', "_", getpass.getuser())
    except (KeyError, OSError, ModuleNotFoundError):  # a container without a user of that number
        user = f"uid_{os.getuid()}"
    return Path(tempfile.gettempdir(), f"torchinductor_{user}")


def clearable(folder: Path) -> bool:
    """Tell whether a folder lies where b10-transfer would delete it: under one of temporary or cached files."""
    roots = (tempfile.gettempdir(), "/tmp", "/cache", "/bdn/cache", Path.home() / ".cache")  # noqa: S108 - compared only
    resolved = folder.resolve()
    return any(Path(root).resolve() in resolved.parents for root in roots)


def _url() -> str | None:
    given = Settings.read().url
    if given:
        return given
    if not _switch("BASETEN_FS_ENABLED"):
        return None
    return f"file://{Path(os.environ.get('B10FS_CACHE_DIR') or _STORE).absolute()}"


def _switch(name: str) -> bool:
    value = os.environ.get(name, "")
    if value in _ON | _OFF:
        return value in _ON
    msg = f"{name}={value!r} is neither on nor off"
    raise SettingsError(msg, hint="use 1 or 0")


def _number(name: str, default: int) -> int:
    value = os.environ.get(name)
    try:
        return default if value is None else int(value)
    except ValueError as error:
        msg = f"{name}={value!r} is not a number"
        raise SettingsError(msg, hint="give a whole number") from error


def _capped(name: str, default: int, *, most: int) -> int:
    value = _number(name, default)
    if value > most:
        _warn_once(name, f"{name}={value} counts as {most}, the most that is allowed")
    return min(value, most)


def _warn_once(name: str, message: str) -> None:
    if name not in _warned:
        _warned.add(name)
        _log.warning("%s", message)
