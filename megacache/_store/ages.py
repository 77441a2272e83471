"""Read when a file was written, as the clients of stores tell it."""

from collections.abc import Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

_NAMES = ("LastModified", "updated", "last_modified", "mtime", "created")
"""What S3, GCS, Azure, a disk and memory call it; the last one is the same where everything is written once."""


def modified_at(info: Mapping[str, Any]) -> float | None:
    """Give the time, in seconds since 1970; None if it is not told."""
    return next((found for name in _NAMES if (found := _seconds(info.get(name))) is not None), None)


def _seconds(value: Any) -> float | None:
    if isinstance(value, str):
        with suppress(ValueError):
            value = datetime.fromisoformat(value)
    if isinstance(value, datetime):
        return (value if value.tzinfo else value.replace(tzinfo=UTC)).timestamp()
    return float(value) if isinstance(value, int | float) else None
