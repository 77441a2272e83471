"""The time at which an object was written is read in each form in which clients tell it."""

from datetime import UTC, datetime, timedelta, timezone

import pytest

from megacache._store.ages import modified_at

MOMENT = datetime(2026, 11, 27, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "info",
    [
        {"LastModified": MOMENT, "created": 1},
        {"LastModified": MOMENT.astimezone(timezone(timedelta(hours=2)))},
        {"updated": "2026-11-27T12:00:00.000Z", "mtime": None},
        {"last_modified": MOMENT},
        {"mtime": MOMENT.timestamp(), "created": 1},
        {"created": MOMENT.replace(tzinfo=None)},
    ],
)
def test_time_is_found(info: dict[str, object]) -> None:
    """Seconds, ISO 8601 and moments with and without a zone mean the same."""
    assert modified_at(info) == MOMENT.timestamp()


@pytest.mark.parametrize("info", [{}, {"size": 7}, {"updated": "yesterday"}, {"mtime": None}])
def test_time_that_is_not_told_is_not_known(info: dict[str, object]) -> None:
    """Where a store says nothing, or nothing that can be read, the time is unknown."""
    assert modified_at(info) is None
