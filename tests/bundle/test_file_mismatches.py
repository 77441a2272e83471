"""Compiled files are of use where processor, compiler and folders agree."""

from collections.abc import Mapping
from functools import partial

import pytest

from megacache._bundle import NO_COMPILER, applicable, file_mismatches
from megacache._bundle.environment import GUARD

on_cpu = partial(file_mismatches, roots={"inductor"}, device_type="cpu")
on_gpu = partial(file_mismatches, roots={"triton"}, device_type="cuda")
HERE: Mapping[str, str] = {name: f"some {name}" for name in GUARD}


def test_equal_facts_agree() -> None:
    """What was compiled on an equal host is of use."""
    assert on_cpu(HERE, dict(HERE)) == ()


@pytest.mark.parametrize("fact", [*GUARD, "a fact of a later version"])
def test_each_fact_counts(fact: str) -> None:
    """One fact that differs is enough, and is named; so is one that this version does not know."""
    (found,) = on_cpu(HERE, {**HERE, fact: "another"})
    assert found.fact == fact


def test_host_without_compiler_takes_any() -> None:
    """A host that has no compiler uses what any compiler made; one that has another compiler does not."""
    assert on_cpu({**HERE, "compiler": NO_COMPILER}, HERE) == ()
    assert on_cpu(HERE, {**HERE, "compiler": NO_COMPILER})


def test_only_flags_that_differ_are_told() -> None:
    """Of a processor's flags those are named that only one of both has."""
    (found,) = on_cpu({**HERE, "cpu_flags": "sse avx2"}, {**HERE, "cpu_flags": "sse avx512f amx_tile"})
    assert (found.here, found.there) == ("avx2", "amx_tile avx512f")


def test_kernels_of_a_gpu_run_beside_any_cpu() -> None:
    """What Triton made for a GPU depends on the C library alone, whatever an older publisher wrote down."""
    elsewhere = {name: "another" for name in GUARD if name != "libc"} | {"libc": HERE["libc"]}
    assert on_gpu(HERE, elsewhere) == on_gpu(HERE, {"libc": HERE["libc"]}) == ()
    assert [found.fact for found in on_gpu(HERE, {**HERE, "libc": "another"})] == ["libc"]
    assert [found.fact for found in on_gpu(HERE, {**HERE, "a later fact": "x"})] == ["a later fact"]


@pytest.mark.parametrize(("roots", "device_type"), [({"triton"}, "cpu"), ({"inductor"}, "cuda"), (set(GUARD), "cuda")])
def test_other_files_need_every_fact(roots: set[str], device_type: str) -> None:
    """C++ libraries, and whatever Triton makes for a CPU, stay bound to processor and compiler."""
    assert applicable(HERE, roots, device_type) == HERE
    assert file_mismatches(HERE, {**HERE, "cpu_flags": "x"}, roots=roots, device_type=device_type)
