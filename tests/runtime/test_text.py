"""What is said is said in English."""

import pytest

from megacache._runtime import counted


@pytest.mark.parametrize(("count", "said"), [(0, "0 graphs"), (1, "1 graph"), (2, "2 graphs")])
def test_nouns_agree_with_their_number(count: int, said: str) -> None:
    """One is singular, all else plural."""
    assert counted(count, "graph") == said
