"""Compiled files are of use where processor, compiler and folders agree."""

import pytest

from megacache._guard import GUARD, NO_COMPILER, mismatches

HERE = {name: f"some {name}" for name in GUARD}


def test_equal_facts_agree() -> None:
    """What was compiled on an equal host is of use."""
    assert mismatches(HERE, dict(HERE)) == ()


@pytest.mark.parametrize("fact", [*GUARD, "a fact of a later version"])
def test_each_fact_counts(fact: str) -> None:
    """One fact that differs is enough, and is named; so is one that this version does not know."""
    (found,) = mismatches(HERE, {**HERE, fact: "another"})
    assert found.fact == fact


def test_host_without_compiler_takes_any() -> None:
    """A host that has no compiler uses what any compiler made; one that has another compiler does not."""
    assert mismatches({**HERE, "compiler": NO_COMPILER}, HERE) == ()
    assert mismatches(HERE, {**HERE, "compiler": NO_COMPILER})


def test_only_flags_that_differ_are_told() -> None:
    """Of a processor's flags those are named that only one of both has."""
    (found,) = mismatches({**HERE, "cpu_flags": "sse avx2"}, {**HERE, "cpu_flags": "sse avx512f amx_tile"})
    assert (found.here, found.there) == ("avx2", "amx_tile avx512f")
