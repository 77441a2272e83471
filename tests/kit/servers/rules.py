"""Say which requests of a store have to fail, and keep count of all."""

import re
import threading
from dataclasses import dataclass
from typing import Any

_LONGEST = 60.0


@dataclass(slots=True)
class _Rule:
    match: re.Pattern[str]
    action: Any
    left: int | None


class Rules:
    """What to do with which request; the first rule that matches counts, and without one the answer is right."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._rules: list[_Rule] = []
        self._lines: list[str] = []
        self._healed = threading.Event()

    def fail(self, match: str, action: Any, times: int | None = None) -> None:
        """Do something else with the next `times` requests (all, if None) that match a regular expression."""
        with self._lock:
            self._rules.append(_Rule(re.compile(match), action, times))

    def heal(self) -> None:
        """Answer rightly from now on, and let go of those that are kept waiting."""
        with self._lock:
            self._rules.clear()
            self._healed.set()
            self._healed = threading.Event()

    def take(self, line: str) -> Any:
        """Count a request, and give what is to be done with it; None for what is right."""
        with self._lock:
            self._lines.append(line)
            for rule in self._rules:
                if rule.match.search(line) and rule.left != 0:
                    rule.left = None if rule.left is None else rule.left - 1
                    return rule.action
        return None

    def healed(self, seconds: float = _LONGEST) -> bool:
        """Wait, and return True at once when the rules are taken back."""
        return self._healed.wait(min(seconds, _LONGEST))

    def requests(self, match: str = "") -> list[str]:
        """Give the requests since the last `forget` that match."""
        with self._lock:
            return [line for line in self._lines if re.search(match, line)]

    def forget(self) -> None:
        """Let `requests` start anew."""
        with self._lock:
            self._lines.clear()
