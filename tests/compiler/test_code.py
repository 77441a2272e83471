"""What an artifact holds of code is read from it; what is in doubt is taken to hold code for the CPU."""

import pickle
from typing import Any

import pytest

from megacache._bundle import Artifact
from megacache._compiler import for_any_cpu

GRAPH, OTHER, ENTRY = "f" + "a" * 51, "f" + "b" * 51, "a" + "c" * 51
TRITON = """
from torch._inductor.async_compile import AsyncCompile
async_compile = AsyncCompile()
triton_poi_fused_0 = async_compile.triton('triton_poi_fused_0', '''{'cpp': ['32L', '1L']}''')
async_compile.wait(globals())
"""
CPP = TRITON + "\ncpp_fused_0 = async_compile.cpp_pybinding(['float*'], r'''#include <cmath>''')"


class Graph:
    """Stands for `CompiledFxGraph`, or an entry that holds several."""

    def __init__(self, key: str, **attributes: Any) -> None:
        self.__dict__.update(cache_key=key, **attributes)


def graph(*sources: str | bytes | None, key: str = GRAPH, kind: str = "inductor") -> Artifact:
    """Make an artifact of modules with these sources."""
    graphs = [Graph(key, source_code=source) for source in sources]
    return Artifact(kind=kind, key=key, content=pickle.dumps(graphs))


def entry(*below: str, source: str | None = None) -> Artifact:
    """Make an entry of AOTAutograd's that builds on graphs."""
    held = {"source_code": source} if source else {}
    return Artifact(kind="aot_autograd", key=ENTRY, content=pickle.dumps([Graph(key, **held) for key in below]))


@pytest.mark.parametrize("protocol", [4, 5])
def test_kernels_of_triton_serve_beside_any_cpu(protocol: int) -> None:
    """A module with kernels of Triton's, or without any, holds nothing for a CPU, whatever words are in it."""
    for source in (TRITON, "async_compile = AsyncCompile()\nextern_kernels.mm(arg0_1, arg1_1, out=buf0)"):
        content = pickle.dumps(Graph(GRAPH, source_code=source), protocol=protocol)
        assert for_any_cpu([Artifact(kind="inductor", key=GRAPH, content=content)]) == {("inductor", GRAPH)}


@pytest.mark.parametrize(
    "source",
    [
        CPP,
        f"{TRITON}\nk = async_compile.halide(meta, 'x')",
        f"{TRITON}\nk = async_compile.cuda('x', 'so')",
        f"{TRITON}\nk = async_compile . some_later_one('x')",
        f"{TRITON}\nCppWrapperCodeCache.load_pybinding(['x'], cpp_wrapper_src)",
        f"{TRITON}\nr'''# include <torch/csrc/inductor/cpp_wrapper/common.h>'''",
        "",
        "async_compile.triton('k', 'x')",
        None,
        b"no text",
    ],
    ids=["C++", "halide", "cuda", "later", "wrapper", "include", "empty", "another form", "none", "bytes"],
)
def test_all_else_stays_with_its_cpu(source: str | bytes | None) -> None:
    """A module that holds C++, is compiled in a way that is not known to spare the CPU, or cannot be read."""
    assert for_any_cpu([graph(source)]) == frozenset()
    assert for_any_cpu([graph(TRITON, source), entry(GRAPH)]) == frozenset()
    assert for_any_cpu([graph(TRITON), graph(source)]) == frozenset()


@pytest.mark.parametrize("content", [b"", b"no pickle", pickle.dumps([TRITON]), pickle.dumps(Graph(GRAPH))[:-40]])
def test_what_is_no_graph_stays_with_its_cpu(content: bytes) -> None:
    """What is damaged, or does not name its source, is in doubt."""
    assert for_any_cpu([Artifact(kind="inductor", key=GRAPH, content=content)]) == frozenset()


def test_source_that_is_pickled_once_counts_for_all() -> None:
    """Pickle refers to a text that it has written before: of several modules each is read."""
    assert for_any_cpu([graph(TRITON, TRITON)]) == {("inductor", GRAPH)}
    assert for_any_cpu([graph(TRITON, TRITON, CPP)]) == frozenset()


def test_entry_goes_with_its_graphs() -> None:
    """An entry of AOTAutograd's serves where all graphs that it names are there, and do, and so does what it holds."""
    shared = graph(TRITON)
    assert for_any_cpu([shared, entry(GRAPH)]) == {("inductor", GRAPH), ("aot_autograd", ENTRY)}
    assert for_any_cpu([shared, entry(GRAPH, source=TRITON)]) == {("inductor", GRAPH), ("aot_autograd", ENTRY)}
    others = [entry(GRAPH, OTHER), entry(), entry(GRAPH, source=CPP)]
    assert [for_any_cpu([shared, one]) for one in others] == [{("inductor", GRAPH)}] * 3
    mixed = [shared, graph(CPP, key=OTHER), entry(GRAPH, OTHER)]
    assert for_any_cpu(mixed) == {("inductor", GRAPH)}


def test_profiles_and_winners_serve_beside_any_cpu() -> None:
    """A profile of shapes, and the choice of an autotuning, hold no code; what is no choice in JSON is in doubt."""
    winner = Artifact(kind="autotune", key="ab/c.best_config", content=b'{"XBLOCK": 64}')
    profile = Artifact(kind="pgo", key="job", content=pickle.dumps({"file.py": 8}))
    assert for_any_cpu([winner, profile]) == {(one.kind, one.key) for one in (winner, profile)}
    for content in (b"XBLOCK", b"[1]", b'{"async_compile": "cpp"}', b"\xff"):
        assert for_any_cpu([Artifact(kind="autotune", key="ab/c.best_config", content=content)]) == frozenset()
    assert for_any_cpu([Artifact(kind="precompile", key="k", content=winner.content)]) == frozenset()
