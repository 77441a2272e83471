"""A deadline is one point in time, however many steps share it."""

import math

import pytest

from megacache._runtime import Deadline
from megacache.errors import DeadlineError, SettingsError

HOUR = 3600.0
PAST = Deadline(at=-1.0, seconds=2.5)
"""A moment before the clock of `time.monotonic` began."""


@pytest.mark.parametrize("seconds", [0, -1, -math.inf, math.nan])
def test_timeout_must_be_positive(seconds: float) -> None:
    """A timeout that leaves no time, or is not a number, is refused at once."""
    with pytest.raises(SettingsError, match="positive"):
        Deadline.after(seconds)


def test_remaining_lies_within_what_was_allowed() -> None:
    """At no time is more left than was allowed."""
    assert 0 < Deadline.after(HOUR).remaining() <= HOUR


def test_timeout_may_be_short() -> None:
    """Any positive number of seconds is a timeout."""
    assert Deadline.after(1e-9).seconds == 1e-9


def test_nothing_remains_of_the_past() -> None:
    """What is over leaves zero seconds, not less."""
    assert PAST.remaining() == 0


def test_check_passes_in_time() -> None:
    """Before the deadline, a check does nothing."""
    Deadline.after(HOUR).check("waiting")


def test_check_raises_when_time_is_over() -> None:
    """After the deadline, a check says what was allowed and what was being done, and gives advice."""
    with pytest.raises(DeadlineError, match=r"not done within 2\.5 s while reading a book") as caught:
        PAST.check("reading a book")
    assert caught.value.hint


def test_sooner_is_never_later() -> None:
    """A sooner deadline comes first; asked to be later, it stays where it was."""
    deadline = Deadline.after(HOUR)
    assert deadline.sooner(1).at < deadline.at
    assert deadline.sooner(1).seconds == 1
    assert deadline.sooner(2 * HOUR) == deadline
    assert PAST.sooner(HOUR).remaining() == 0
