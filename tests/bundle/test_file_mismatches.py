"""Compiled files are of use where processor, compiler and folders agree."""

from collections.abc import Mapping
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from megacache._bundle import NO_COMPILER, applicable, file_mismatches
from megacache._bundle.environment import GUARD

on_cpu = partial(file_mismatches, roots={"inductor"}, device_type="cpu")
on_gpu = partial(file_mismatches, roots={"triton"}, device_type="cuda")
HERE: Mapping[str, str] = {name: f"some {name}" for name in GUARD}


def test_equal_facts_agree() -> None:
    """What was compiled on an equal host is of use."""
    assert on_cpu(HERE, dict(HERE)) == ()


@pytest.mark.parametrize("fact", [*sorted(GUARD.keys() - {"cpu_flags"}), "a fact of a later version"])
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
    (found,) = on_cpu(processor("", "sse avx2"), processor("", "sse avx512f amx_tile"))
    assert (found.fact, found.here, found.there) == ("cpu_flags", "avx2", "amx_tile avx512f")


def processor(target: str, flags: str = "flags of all", **others: str) -> Mapping[str, str]:
    """Give the facts of a host, by what its compiler uses and its kernel tells."""
    return {**HERE, "cpu_target": target, "cpu_flags": flags, **others}


def test_processor_that_can_do_more_takes_what_was_compiled_for_less() -> None:
    """What the compiler used there has to be there; the kernels may tell of both processors what they like."""
    assert on_cpu(processor("avx avx2 fma", "sse avx2"), processor("avx2 avx", "sse avx512f")) == ()
    (found,) = on_cpu(processor("avx avx2", "same"), processor("avx avx2 fma gfni", "same"))
    assert (found.fact, found.here, found.there) == ("cpu_target", "", "fma gfni")


def test_what_no_compiler_has_told_needs_equal_flags() -> None:
    """Where it is not known what was used, as in bundles of format 1.3 and before, the kernels' flags have to agree."""
    assert on_cpu(processor("avx avx2", "sse avx2"), processor("", "avx2 sse")) == ()
    assert [one.fact for one in on_cpu(processor("avx avx2", "sse avx2 more"), processor("", "sse avx2"))] == [
        "cpu_flags"
    ]
    # A kernel does not tell of all that a compiler may use.
    assert on_cpu(processor("avx", "same", compiler=NO_COMPILER), processor("avx hidden", "same")) == ()


_NAMES = st.sampled_from(["avx", "avx2", "bmi2", "fma", "gfni", "vaes"])
_SOME = st.frozensets(_NAMES)


@given(there=_SOME, seen_there=_SOME, used=_SOME, here=_SOME, shown=_SOME, with_compiler=st.booleans())
def test_code_runs_wherever_it_is_restored(
    there: frozenset[str],
    seen_there: frozenset[str],
    used: frozenset[str],
    here: frozenset[str],
    shown: frozenset[str],
    *,
    with_compiler: bool,
) -> None:
    """Whatever processors can do, and compilers and kernels see of it: what is restored uses nothing that is not here.

    Code uses part of what the compiler saw there. On this host the compiler sees all, and the kernel tells of a part.
    """
    seen_there &= there
    used &= seen_there
    target = here if with_compiler else here & shown
    compiler = HERE["compiler"] if with_compiler else NO_COMPILER
    # The flags differ: where they are equal, they alone decide what is not known otherwise.
    mine = processor(" ".join(target), "flags here", compiler=compiler)
    theirs = processor(" ".join(seen_there), "flags there")
    if not on_cpu(mine, theirs):
        assert used <= here
    elif seen_there and target:
        assert not seen_there <= target


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
    assert file_mismatches(HERE, {**HERE, "cpu_target": "x"}, roots=roots, device_type=device_type)
