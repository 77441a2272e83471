"""Conditions of using a graph that PyTorch's keys leave out: the definitions of the custom operators that it calls.

A key holds an operator by its name. What PyTorch makes of a call depends on more: what the schema says is mutated, the
tags, the shapes that the fake implementation gives, the formula of the backward, which becomes part of the graph. A
digest of these is published with the graph, and compared where PyTorch looks the graph up: then the operator is
defined, however long after the warm start.
"""

import functools
import inspect
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from types import CodeType
from typing import Any

from megacache._bundle import ArtifactRef, Digest, build_blob, identify_artifact, parse_blob
from megacache._compiler.artifacts import Loaded, forget_exactly, load
from megacache._compiler.door import door
from megacache._runtime import Deadline, kept

Operators = Mapping[str, str]
"""Digests of definitions, by the names of operators, such as `shop::bump`."""

_CALL = re.compile(rb"torch\.ops\.([A-Za-z_]\w*)\.([A-Za-z_]\w*)")
_OWN = frozenset(
    {
        "_c10d_functional",
        "_c10d_functional_autograd",
        "_dtensor",
        "_inductor_test",
        "_native",
        "_native_aot",
        "_quantized",
        "_test",
        "aten",
        "c10d",
        "c10d_functional",
        "coor",
        "debug_mode_ops",
        "debugprims",
        "export",
        "flex_gemm",
        "flex_lib",
        "fsdp",
        "higher_order",
        "inductor",
        "inductor_prims",
        "mempool",
        "mkl",
        "mkldnn",
        "mkldnn_prepacked",
        "onednn",
        "onnx",
        "onnx_symbolic",
        "prepacked",
        "prim",
        "prims",
        "profiler",
        "quantization",
        "quantized",
        "quantized_decomposed",
        "rngprims",
        "sparse",
        "static_runtime",
        "streams",
        "symm_mem",
    }
)
"""Namespaces of PyTorch's own operators, which are in every key with the rest of its source."""
_FUNCTIONS = ("_abstract_fn", "_backward_fn", "_setup_context_fn", "_vmap_fn")

_expected: dict[str, dict[Digest, tuple[ArtifactRef, Operators]]] = kept({})
"""By key and digest: what was loaded, or left out, under conditions."""
_refused: dict[ArtifactRef, frozenset[str]] = kept({})


def called_operators(content: bytes | memoryview) -> frozenset[str]:
    """Name the custom operators that a graph calls; it holds its own code as text."""
    found = {(namespace.decode(), name.decode()) for namespace, name in set(_CALL.findall(content))}
    return frozenset(f"{namespace}::{name}" for namespace, name in found if namespace not in _OWN)


def definitions(names: Iterable[str]) -> Operators:
    """Describe operators as they are defined now; those that are not are left out."""
    with door("reading the definitions of custom operators"):
        found = {name: _definition(name) for name in sorted(names)}
    return {name: digest for name, digest in found.items() if digest}


def load_if_met(
    raw: bytes, operators: Operators, deadline: Deadline
) -> tuple[Loaded, Mapping[ArtifactRef, frozenset[str]]]:
    """Hand a blob to torch, without the graphs that call an operator which is defined otherwise by now.

    Those are given with the operators' names. Where an operator is not defined yet, its graphs are loaded, and looked
    at again when torch looks them up. Raises `CompilerError` as `load` does.
    """
    if not operators:
        return load(raw, deadline), {}
    kept, left_out = [], {}
    with door("checking custom operators"):
        watched = _watch_lookups()
        for artifact in parse_blob(raw):
            needed = {name: operators[name] for name in called_operators(artifact.content) & operators.keys()}
            unmet: Collection[str] = ()
            if needed:
                ref = identify_artifact(artifact)
                _expected.setdefault(ref.key, {})[ref.digest] = ref, needed
                # An operator that is not defined yet is compared at the look-up, if that is watched.
                if unmet := [name for name, found in _differing(needed) if found or not watched]:
                    left_out[ref] = frozenset(unmet)
            if not unmet:
                kept.append(artifact)
    if not left_out:
        return load(raw, deadline), {}
    return load(build_blob(kept), deadline) if kept else Loaded(), left_out


def refused() -> Mapping[str, int]:
    """Count the loaded artifacts that torch was not given when it looked them up, by operator."""
    names = [name for unmet in tuple(_refused.values()) for name in unmet]
    return {name: names.count(name) for name in sorted(set(names))}


@functools.cache
def _watch_lookups() -> bool:
    """Look at each graph before torch does; tell whether this torch lets that be done."""
    from torch._inductor import codecache

    # Private, and alike in torch 2.8 to 2.15: the caches of Inductor and of AOTAutograd read candidates by this method.
    owner: Any = getattr(codecache, "GuardedCache", None)
    candidates: Any = vars(owner).get("iterate_over_candidates") if owner else None
    if not isinstance(candidates, classmethod):
        return False
    inner: Callable[..., Iterator[Any]] = candidates.__func__

    @functools.wraps(inner)
    def met(cls: Any, local: Any, remote_cache: Any, key: str) -> Iterator[Any]:
        for candidate in inner(cls, local, remote_cache, key):
            if not _is_refused(key, candidate[1]):
                yield candidate

    owner.iterate_over_candidates = classmethod(met)
    return True


def _is_refused(key: str, content: bytes) -> bool:
    if key not in _expected:
        return False
    ref, needed = _expected[key].get(Digest.of(content), (None, {}))
    if ref is None:
        return False
    try:
        unmet = dict(_differing(needed))
        if any(unmet.values()):
            forget_exactly([ref])  # a later process may find it here that knows of no condition
    except Exception:  # noqa: BLE001 - what cannot be compared is compiled
        unmet = dict.fromkeys(needed, "")
    if unmet:
        _refused[ref] = frozenset(unmet)
    return bool(unmet)


def _differing(needed: Operators) -> Iterator[tuple[str, str]]:
    """Give what is defined otherwise, with the digest of what it is now; that is empty if it is not defined."""
    for name, digest in needed.items():
        if (found := _definition(name)) != digest:
            yield name, found


def _definition(name: str) -> str:
    import torch

    schemas = torch._C._jit_get_schemas_for_operator(name)
    parts = sorted(part for schema in schemas for part in _parts(name, schema))
    return Digest.of("\n".join(parts).encode()).hex if parts else ""


def _parts(name: str, schema: Any) -> Iterator[str]:
    import torch
    from torch._library import custom_ops, simple_registry

    overload = f"{name}.{schema.overload_name}" if schema.overload_name else name
    tags: Any = torch._C._get_operation_overload(name, schema.overload_name)[2]
    yield f"{schema} {sorted(map(str, tags))}"
    kernel = simple_registry.singleton.find(overload).fake_impl.kernel
    yield f"{overload} fake {_code(kernel.func if kernel else None)}"
    owner = custom_ops.OPDEFS.get(overload)
    for attribute in _FUNCTIONS:
        yield f"{overload} {attribute} {_code(getattr(owner, attribute, None))}"


def _code(function: Any) -> str:
    """Describe what a function does, and not where it stands or what it calls."""
    function = inspect.unwrap(function)
    while isinstance(function, functools.partial):
        function = function.func
    code = getattr(function, "__code__", None)
    return str(_plain(code)) if code is not None else type(function).__qualname__


def _plain(constant: Any) -> Any:
    if isinstance(constant, CodeType):
        return constant.co_code, constant.co_exceptiontable, constant.co_names, _plain(constant.co_consts)
    if isinstance(constant, tuple):
        return tuple(map(_plain, constant))
    if isinstance(constant, frozenset):  # its order differs between processes
        return sorted(map(repr, constant))
    return constant
