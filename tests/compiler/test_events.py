"""What torch tells of its lookups is counted by graphs, not by attempts."""

from collections import Counter
from typing import Any

import pytest

from megacache._compiler import counters, events
from megacache._compiler.events import Lookup


def lookup(state: str, compilation: str, attempt: int = 0, **known: Any) -> Lookup:
    """Make a lookup in AOTAutograd's cache."""
    told: dict[str, Any] = {"kind": "aot_autograd", "guard_missed": False, "reason": "", "seconds_saved": 0.0, **known}
    return Lookup(state=state, compilation=compilation, attempt=attempt, **told)


@pytest.mark.parametrize(
    ("lookups", "again"),
    [
        ([lookup("miss", "0/0"), lookup("hit", "0/0", 1)], 1),
        ([lookup("miss", "0/0"), lookup("miss", "0/0", 1), lookup("hit", "0/0", 2)], 2),
        ([lookup("miss", "0/0"), lookup("hit", "0/1")], 0),
        ([lookup("miss", "0/0"), lookup("hit", "0/0")], 0),
        ([lookup("hit", "0/0", 1), lookup("miss", "0/0")], 0),
        ([lookup("miss", ""), lookup("hit", "", 1)], 0),
        ([lookup("miss", "0/0"), lookup("hit", "0/0", 1, kind="inductor")], 0),
    ],
    ids=["anew", "anew twice", "recompiled", "graph break", "after a reset", "untold", "another cache"],
)
def test_later_attempt_supersedes(lookups: list[Lookup], again: int) -> None:
    """Only a later attempt at the same compilation takes the place of a lookup."""
    events._lookups.extend(lookups)
    assert len(events.superseded()) == again


def test_superseded_lookup_counts_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither what torch counted nor its reasons hold it."""
    table = {"aot_autograd": Counter(autograd_cache_bypass=1, autograd_cache_hit=1)}
    monkeypatch.setattr("torch._dynamo.utils.counters", table)
    events._lookups.extend([lookup("bypass", "0/0", reason="a reason"), lookup("hit", "0/0", 1)])
    found = counters._lookups("aot_autograd")
    assert (found.hit, found.missed, found.bypassed, found.reasons) == (1, 0, 0, {})
