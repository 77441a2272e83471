"""What artifacts hold of code, as it stands in them: which serve beside any CPU, and which hold C++ that depends on it.

Inductor writes a graph as a Python module, and keeps its source with it. Kernels are in it as text, each with the way
to compile it: those for a CPU, and the C++ wrapper, hold C++, whose steps depend on the CPU's vectors.
"""

import json
import re
from collections import defaultdict
from collections.abc import Iterable

from megacache._bundle import REPLACED_KINDS, Artifact
from megacache._compiler.graph_keys import graphs_below
from megacache._compiler.pickles import attribute_texts

_HELD = re.compile(r"\basync_compile\s*\.\s*(\w+)")
_FOR_GPU = frozenset({"multi_kernel", "size_hint_multi_kernel", "triton", "wait"})
"""What a module asks of PyTorch's compiler that makes no code for a CPU; of all else that is not known."""
_BEGINNING = "async_compile = AsyncCompile()"
_OF_CPP = re.compile(r"#\s*include|CodeCache|cpp_wrapper")


def for_any_cpu(artifacts: Iterable[Artifact]) -> frozenset[tuple[str, str]]:
    """Give kind and key of the artifacts that were read to hold no code for a CPU; what is in doubt is not among them.

    An entry of AOTAutograd's holds the keys of its graphs, and serves where all of them are among the artifacts and do.
    """
    by_name = defaultdict(list)
    for one in artifacts:
        by_name[one.kind, one.key].append(one)
    free = {name for name, variants in by_name.items() if name[0] != "aot_autograd" and all(map(_is_free, variants))}
    graphs = {key for kind, key in free if kind == "inductor"}
    entries = {name: variants for name, variants in by_name.items() if name[0] == "aot_autograd"}
    return frozenset(free | {name for name, found in entries.items() if all(_builds_on(one, graphs) for one in found)})


def _is_free(artifact: Artifact) -> bool:
    if artifact.kind == "inductor":
        sources = _sources(artifact)
        return bool(sources) and all(map(_is_for_gpu, sources))
    if artifact.kind not in REPLACED_KINDS:
        return False
    # A profile tells of sizes, and the winner of an autotuning is a choice among Triton's options, in JSON.
    return b"async_compile" not in bytes(artifact.content) and (artifact.kind == "pgo" or _is_json(artifact.content))


def _builds_on(entry: Artifact, graphs: set[str]) -> bool:
    below = graphs_below(entry)
    # An entry may hold its graphs, and their sources, itself.
    return bool(below) and below <= graphs and all(map(_is_for_gpu, _sources(entry)))


def _sources(artifact: Artifact) -> list[str]:
    try:
        return list(attribute_texts(bytes(artifact.content), "source_code"))
    except ValueError:  # it is written in another way than is known here
        return [""]


def _is_for_gpu(source: str) -> bool:
    """Tell whether a module holds kernels of Triton's and calls of PyTorch's operators, and nothing else."""
    return _BEGINNING in source and set(_HELD.findall(source)) <= _FOR_GPU and not _OF_CPP.search(source)


def _is_json(content: bytes | memoryview) -> bool:
    try:
        return isinstance(json.loads(bytes(content)), dict)
    except ValueError:
        return False
