"""One point in time that every step of a call shares."""

import time
from dataclasses import dataclass
from typing import Self

from megacache.errors import DeadlineError, SettingsError

# Python's locks and queues refuse a wait of `inf` seconds.
_LONGEST = 7 * 24 * 3600.0


@dataclass(frozen=True, slots=True)
class Deadline:
    """The moment at which a call must have returned."""

    at: float
    """On the clock of `time.monotonic()`."""
    seconds: float
    """What was allowed in all."""

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Start the clock; `seconds` must be positive, and count for a week at most."""
        if not isinstance(seconds, int | float) or not seconds > 0:
            msg = f"timeout is {seconds!r:.40}"
            raise SettingsError(msg, hint="give a positive number of seconds")
        seconds = min(seconds, _LONGEST)
        return cls(at=time.monotonic() + seconds, seconds=seconds)

    def restarted(self) -> Self:
        """Allow the same time again, from now on."""
        return type(self).after(self.seconds)

    def remaining(self) -> float:
        """Tell the seconds left, never below zero."""
        return max(0.0, self.at - time.monotonic())

    def sooner(self, seconds: float) -> Self:
        """Give a deadline at most `seconds` away, and never after this one."""
        return type(self)(at=min(self.at, time.monotonic() + seconds), seconds=min(self.seconds, seconds))

    def no_sooner(self, seconds: float) -> Self:
        """Give a deadline at least `seconds` away, and never before this one."""
        return type(self)(at=max(self.at, time.monotonic() + seconds), seconds=self.seconds)

    def later(self, seconds: float) -> Self:
        """Give a deadline that comes so many seconds later."""
        return type(self)(at=self.at + seconds, seconds=self.seconds)

    def missed(self, doing: str) -> DeadlineError:
        """Make the error to raise when time ran out."""
        return DeadlineError(
            f"not done within {self.seconds:g} s while {doing}",
            hint="give a longer timeout, or find out why there was no answer",
        )

    def check(self, doing: str) -> None:
        """Raise `DeadlineError` if time is over."""
        if not self.remaining():
            raise self.missed(doing)
