"""The names of `b10_transfer`, as of b10-transfer 0.4.1.

from megacache.compat.b10 import load_compile_cache, save_compile_cache   # was: from b10_transfer import ...

The store is `MEGACACHE_URL`; without it, `B10FS_CACHE_DIR` (or `/cache/model/compile_cache`) on the shared volume, if
`BASETEN_FS_ENABLED` is on. As there, a load and a save raise nothing: each returns a status, and why is logged on
`logging.getLogger("megacache")`. What changes: a save adds what is new to what others have saved, where b10-transfer
leaves the first archive as it is; an environment is told by all facts that artifacts depend on, and not by the GPU's
name and CUDA's version alone; what lies in the local folder neither hinders a load nor is what a save takes. The
archives that b10-transfer has written are not read.
"""

import logging
import shutil
from enum import Enum, auto
from pathlib import Path
from typing import Any

from megacache import Cache, MegacacheError, PublishResult, PublishStatus, WarmResult, WarmStatus, environment
from megacache._runtime import kept
from megacache._store import local_folder, split_places
from megacache.compat._stock import Stock, free_space, is_filled, size_of, take_stock
from megacache.compat._variables import MB, Variables, clearable, torch_folder
from megacache.errors import SettingsError

__all__ = [
    "CacheError",
    "CacheOperationInterrupted",
    "CacheValidationError",
    "OperationStatus",
    "clear_local_cache",
    "get_b10_logger",
    "get_cache_info",
    "list_available_caches",
    "load_compile_cache",
    "save_compile_cache",
    "transfer",
]

_log = logging.getLogger("megacache")
_loaded: set[str] = kept(set())
"""URLs of the stores that this process has loaded from."""

CacheError = MegacacheError
CacheValidationError = SettingsError


class CacheOperationInterrupted(MegacacheError):  # noqa: N818 - the name is given
    """There is less free space on a disk than was asked for."""


class OperationStatus(Enum):
    """How a call ended."""

    SUCCESS = auto()
    """Something was loaded, or saved."""
    ERROR = auto()
    """It failed; the log says why."""
    DOES_NOT_EXIST = auto()
    """Nothing is published for this environment."""
    SKIPPED = auto()
    """There was nothing to do."""


def load_compile_cache() -> OperationStatus:
    """Warm from the store; call it before the first compilation.

    Returns:
        `SUCCESS` if something was loaded; `DOES_NOT_EXIST` if nothing is published for this environment; `SKIPPED` if
        this process has loaded from the store already, or caches are switched off; `ERROR` otherwise.
    """
    try:
        variables = Variables.read()
        url = _enabled(variables)
        if url in _loaded:
            return OperationStatus.SKIPPED
        _require_space(torch_folder(), variables.local_space)
        status = _status_of_load(Cache(url).warm())
    except (MegacacheError, OSError) as error:
        return _failed("load", error)
    if status is OperationStatus.SUCCESS:
        _loaded.add(url)
    return status


def save_compile_cache() -> OperationStatus:
    """Publish what this process compiled and the store does not hold; call it after the model has run.

    Returns:
        `SUCCESS` if something was saved; `SKIPPED` if nothing was compiled, all of it is in the store, or saving is
        switched off; `ERROR` otherwise, also if it is larger than `MAX_CACHE_SIZE_MB`: then nothing was saved.
    """
    try:
        variables = Variables.read()
        url = _enabled(variables)
        if folder := local_folder(split_places(url)[-1]):
            _require_space(folder, variables.store_space)
        return _status_of_save(Cache(url, max_publish_bytes=variables.max_bytes).publish())
    except (MegacacheError, OSError) as error:
        return _failed("save", error)


def clear_local_cache() -> bool:
    """Delete PyTorch's cache folder, and all in it.

    Returns:
        True if it is gone, or was not there; False if it cannot be deleted, or lies where nothing should be: it must be
        somewhere under the folder for temporary files, `/cache`, `/bdn/cache` or `~/.cache`.
    """
    folder = torch_folder()
    try:
        if folder.exists():
            if not clearable(folder):
                msg = f"{folder} is not under a folder of temporary or cached files"
                raise SettingsError(msg, hint="delete it yourself")
            shutil.rmtree(folder)
    except (MegacacheError, OSError, RuntimeError) as error:
        _failed("clear", error)
        return False
    _loaded.clear()
    return True


def get_cache_info() -> dict[str, Any]:
    """Describe PyTorch's cache folder, and what the store holds for this environment.

    Returns:
        `environment_key` (megacache's fingerprint), `local_cache_exists`, `b10fs_enabled` (whether there is a store)
        and `b10fs_cache_exists`; `local_cache_size_mb` and `b10fs_cache_size_mb` only of what exists.

    Raises:
        CacheError: PyTorch cannot be imported or asked.
    """
    key = environment().fingerprint
    folder = torch_folder()
    enabled, stocks, _ = _look(key)
    info: dict[str, Any] = {
        "environment_key": key,
        "local_cache_exists": is_filled(folder),
        "b10fs_enabled": enabled,
        "b10fs_cache_exists": bool(stocks),
    }
    if info["local_cache_exists"]:
        info["local_cache_size_mb"] = size_of(folder) / MB
    if stocks:
        info["b10fs_cache_size_mb"] = sum(stock.size for stock in stocks) / MB
    return info


def list_available_caches() -> dict[str, Any]:
    """Describe what the store holds, for one environment after the other, newest first.

    Returns:
        `caches`, `current_environment`, `total_caches`, `current_cache_exists` and `b10fs_enabled`; `error` if the
        store could not be asked. Each of `caches` has `filename` (here a folder in the store), `environment_key`,
        `size_mb`, `is_current_environment` and `created_time`, in seconds since 1970.

    Raises:
        CacheError: PyTorch cannot be imported or asked.
    """
    key = environment().fingerprint
    enabled, stocks, error = _look()
    caches = [stock.described(key) for stock in stocks]
    found = {
        "caches": caches,
        "current_environment": key,
        "total_caches": len(caches),
        "current_cache_exists": any(cache["is_current_environment"] for cache in caches),
        "b10fs_enabled": enabled,
    }
    return found | ({"error": error} if error else {})


def transfer(source: str, dest: str) -> OperationStatus:
    """Copy a file, and make the folder it goes to; return `SUCCESS` or `ERROR`, after which a part may be there."""
    try:
        Path(dest).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, dest)
    except OSError as error:
        return _failed("transfer", error)
    return OperationStatus.SUCCESS


def get_b10_logger(name: str) -> logging.Logger:
    """Give a logger that writes to stderr from level INFO on, in no colour; one with handlers is given as it is."""
    logger = logging.getLogger(name)
    if not logger.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(levelname)s - %(message)s"))
        logger.addHandler(handler)
        logger.setLevel(logging.INFO)
        logger.propagate = False
    return logger


def _enabled(variables: Variables) -> str:
    if variables.url is None:
        msg = "there is no store"
        raise SettingsError(msg, hint="set MEGACACHE_URL, or BASETEN_FS_ENABLED=1 where the shared volume is mounted")
    return variables.url


def _require_space(folder: Path, needed: int) -> None:
    if needed and (free := free_space(folder)) < needed:
        msg = f"{free // MB} MB are free at {folder}, {needed // MB} are asked for"
        raise CacheOperationInterrupted(
            msg, hint="lower MIN_LOCAL_SPACE_MB, MIN_B10FS_SPACE_MB or MAX_CONCURRENT_SAVES"
        )


def _status_of_load(warmed: WarmResult) -> OperationStatus:
    return {
        WarmStatus.LOADED: OperationStatus.SUCCESS,
        WarmStatus.MISS: OperationStatus.DOES_NOT_EXIST,
        WarmStatus.DISABLED: OperationStatus.SKIPPED,
    }.get(warmed.status, OperationStatus.ERROR)


def _status_of_save(published: PublishResult) -> OperationStatus:
    if published.status is PublishStatus.PUBLISHED:
        return OperationStatus.SUCCESS
    if published.status is PublishStatus.TOO_LARGE:
        return _failed("save", published.reason)
    return OperationStatus.ERROR if published.error is not None else OperationStatus.SKIPPED


def _look(fingerprint: str = "") -> tuple[bool, list[Stock], str]:
    """Tell whether there is a store, what it holds, and why that is not known."""
    enabled = False
    try:
        url = _enabled(Variables.read())
        enabled = True
        return enabled, take_stock(split_places(url)[-1], fingerprint), ""
    except MegacacheError as error:
        _failed("listing", error)
        return enabled, [], str(error)


def _failed(what: str, why: object) -> OperationStatus:
    _log.warning("b10 %s failed: error=%s", what, why)
    return OperationStatus.ERROR
