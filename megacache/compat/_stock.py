"""What a store holds and how much room there is, in the words of b10-transfer.

It reads the catalog, because the public functions do not report other environments, nor sizes in the store.
"""

import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from megacache._catalog import Catalog, Holding, Inventory
from megacache._runtime import Deadline
from megacache._store import Store
from megacache.compat._variables import MB

_SECONDS = 30.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Stock:
    """What a store holds for one environment."""

    path: str
    """`<device>/<fingerprint>`, its place in the store."""
    fingerprint: str
    size: int
    """Bytes."""
    created: float
    """When the newest bundle was published, in seconds since 1970; 0 if no manifest can be read."""

    def described(self, current: str) -> dict[str, Any]:
        """Describe it as `list_available_caches` does, given the fingerprint of this process."""
        return {
            "filename": self.path,
            "environment_key": self.fingerprint,
            "size_mb": self.size / MB,
            "is_current_environment": self.fingerprint == current,
            "created_time": self.created,
        }


def take_stock(url: str, fingerprint: str = "") -> list[Stock]:
    """List what is published, newest first, of one environment only if a fingerprint is given.

    One LIST, and one GET for each manifest. Raises `StoreError` if the store cannot be listed.
    """
    store = Store.open(url, storage_options=None, deadline=Deadline.after(_SECONDS))
    published = [one for one in Inventory.of(store).holdings if one.visible]
    wanted = [one for one in published if fingerprint in {"", one.prefix.fingerprint}]
    return sorted((_stock(store, one) for one in wanted), key=lambda stock: stock.created, reverse=True)


def is_filled(folder: Path) -> bool:
    """Tell whether a folder is there, and anything in it."""
    return any(folders or files for _, folders, files in os.walk(folder))


def size_of(folder: Path) -> int:
    """Add up the files in a folder; what vanishes meanwhile does not count."""
    return sum(_sizes(folder))


def free_space(folder: Path) -> int:
    """Tell the bytes that are free where a folder lies, or would lie."""
    existing = next(one for one in (folder, *folder.parents) if one.exists())
    return shutil.disk_usage(existing).free


def _stock(store: Store, holding: Holding) -> Stock:
    manifests = [done.value for done in Catalog(store, holding.prefix).read(holding.visible) if done.value is not None]
    created = max((_seconds(manifest.created) for manifest in manifests), default=0.0)
    return Stock(path=holding.prefix.path, fingerprint=holding.prefix.fingerprint, size=holding.size, created=created)


def _seconds(date: str) -> float:
    try:
        return datetime.fromisoformat(date).timestamp()
    except (ValueError, OverflowError, OSError):  # a manifest says what its writer liked
        return 0.0


def _sizes(folder: Path) -> Iterator[int]:
    for path, _, files in os.walk(folder):
        for name in files:
            with suppress(OSError):
                yield Path(path, name).stat().st_size
