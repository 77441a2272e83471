"""Tell which names of torch and Triton that megacache uses are gone or changed, beside the newest torch it supports.

`python -m tests.kit.torch_state` looks at what is installed, and fails if a name is gone; `--record` writes its state
down, to be compared with from then on.
"""

import argparse
import functools
import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

from megacache import _compiler
from tests.kit.torch_names import ABSENT, asked, find

DOOR = Path(_compiler.__file__).parent
RECORD = Path(__file__).with_name("torch_state.json")
PACKAGES = ("torch", "triton")

UNREADABLE = {
    "torch._dynamo.config": ("caching_precompile", "gc_gen2_threshold_during_compile"),
    "torch._dynamo.utils.ChromiumEventLogger": ("log_instant_event",),
    "torch._functorch._aot_autograd.autograd_cache.AOTAutogradCache": ("_get_tmp_dir_for_key",),
    "torch._functorch._aot_autograd.schemas.AOTConfig": ("to_cacheable",),
    "torch._functorch.config": ("_sync_cache_decision_cross_ranks",),
    "torch._guards.CompileContext": ("current_trace_id",),
    "torch._inductor.codecache.CppCodeCache": ("_load_library", "cache"),
    "torch._inductor.codecache.FxGraphCache": ("_get_tmp_dir_for_key",),
    "torch._inductor.codecache.GuardedCache": ("iterate_over_candidates",),
    "torch._inductor.cpu_vec_isa.VecISA": ("build_arch_flags",),
    "torch._inductor.runtime.triton_compat": ("triton_key",),
    "torch._inductor.runtime.triton_heuristics.CachingAutotuner": ("_precompile_config",),
    "torch.compiler._cache.CacheArtifactManager": (
        *("_cache_info", "_new_cache_artifacts", "_serializer", "with_fresh_cache"),
    ),
    "torch.cpu": (
        *("_is_amx_fp16_supported", "_is_amx_tile_supported", "_is_avx2_supported", "_is_avx512_bf16_supported"),
        *("_is_avx512_supported", "_is_vnni_supported", "get_capabilities"),
    ),
    "triton.compiler.compiler": ("CompiledKernel", "triton_key"),
}
"""What the door asks for by a text, or of a variable that may hold one of several things."""
WORDS = (
    *("BundledAOTAutogradResult", r"CompiledArtifact\.load", "_arch_flags", "_fx_graph_cache_debug_lines"),
    *("_recursive_pre_grad_passes", "autograd_cache_bypass", "autograd_cache_cross_rank_miss"),
    *(
        "autograd_cache_guard_miss",
        "autograd_cache_hit",
        "autograd_cache_miss",
        "autograd_cache_saved",
        "backend_compile",
        "cache_bypass_reason",
        "compile_file",
    ),
    *("cache_status_detailed", "compile_results", "create_aot_dispatcher_function", "entire_backward_compile"),
    *("entire_frame_compile", "found_by_coordesc", "fullgraph_capture", "fxgraph_cache_bypass", "fxgraph_cache_hit"),
    *("fxgraph_cache_miss", "guards_expr", "inductor_compile", "inductor_meta", "save_cache_hook", "time_saved_ns"),
    *("triton_cache_hash", "unique_graphs"),
)
"""Counters, events, phases and attributes of objects: what only the text of torch's compiler shows."""

State = Mapping[str, tuple[str, str]]
"""For each name its signature, or what it is, and the digest of its source."""
_NOTHING = ("absent", "")


def names() -> tuple[str, ...]:
    """Give all names, including those of packages that are not installed."""
    read = {name for _, name in asked(*sorted(DOOR.rglob("*.py")))}
    unreadable = {f"{owner}.{name}" for owner, attributes in UNREADABLE.items() for name in attributes}
    return tuple(sorted(read | unreadable))


def state() -> State:
    """Look at what is installed."""
    installed = [name for name in names() if importlib.util.find_spec(_package(name))]
    written = {f"text {word}": ("written", "") if _is_written(word) else _NOTHING for word in WORDS}
    return {name: _described(find(name)) for name in installed} | written


def compared(before: State, now: State) -> Iterator[tuple[str, str, str]]:
    """Give for each name that was there its fate, the name, and what is known of the change."""
    for name, was in before.items():
        found = now.get(name, _NOTHING)
        if found == was:
            yield ("same", name, "")
        elif found == _NOTHING:
            yield ("gone", name, "")
        else:
            yield ("changed", name, "body" if found[0] == was[0] else f"{was[0]} -> {found[0]}")


def main() -> int:
    """Print what is gone and what changed; give 1 if anything is gone."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--record", action="store_true", help="write down the state of what is installed")
    record = parser.parse_args().record
    installed = [package for package in PACKAGES if importlib.util.find_spec(package)]
    versions, now = {package: version(package) for package in installed}, state()
    if record:
        RECORD.write_text(json.dumps({"versions": versions, "state": now}, indent=1, sort_keys=True) + "\n")
    known = json.loads(RECORD.read_text())
    sys.stdout.write(f"{_list(versions)}, beside {_list(known['versions'])}\n")
    before = {name: tuple(entry) for name, entry in known["state"].items() if _package(name) in installed}
    fates = list(compared(before, now))
    for fate, name, change in sorted(fates):
        if fate != "same":
            sys.stdout.write(f"{fate:8} {name} {_place(name)} {change}".rstrip() + "\n")
    count = [fate for fate, _, _ in fates].count
    sys.stdout.write(f"{count('same')} same, {count('changed')} changed, {count('gone')} gone\n")
    return 1 if count("gone") else 0


def _list(versions: Mapping[str, str]) -> str:
    return ", ".join(f"{package} {number}" for package, number in versions.items())


def _package(name: str) -> str:
    return "torch" if name.startswith("text ") else name.partition(".")[0]


def _described(found: Any) -> tuple[str, str]:
    if found is ABSENT:
        return _NOTHING
    if isinstance(found, ModuleType):
        return ("module", "")
    if not callable(found):
        return (f"value: {type(found).__name__}", "")
    found = inspect.unwrap(found)
    try:
        form = "class" if inspect.isclass(found) else _signature(found)
        return (form, hashlib.sha256(inspect.getsource(found).encode()).hexdigest()[:16])
    except (OSError, TypeError, ValueError):  # it is not written in Python
        return ("built in", "")


def _signature(function: Callable[..., Any]) -> str:
    """Give it without types, which are written in another way every other version."""
    whole = inspect.signature(function)
    bare = [one.replace(annotation=one.empty) for one in whole.parameters.values()]
    return str(whole.replace(parameters=bare, return_annotation=whole.empty))


def _place(name: str) -> str:
    """Tell where to look at what has changed."""
    found = None if name.startswith("text ") else find(name)
    try:
        found = inspect.unwrap(found) if callable(found) else None
        return f"({inspect.getsourcefile(found)}:{inspect.getsourcelines(found)[1]})" if found is not None else ""
    except (OSError, TypeError):
        return ""


def _is_written(word: str) -> bool:
    return any(re.search(rf"\b{word}\b", text) for text in _texts())


@functools.cache
def _texts() -> tuple[str, ...]:
    (torch,) = importlib.import_module("torch").__path__
    folders = (Path(torch, name) for name in ("_dynamo", "_functorch", "_inductor"))
    return tuple(path.read_text() for folder in folders for path in sorted(folder.rglob("*.py")))


if __name__ == "__main__":
    sys.exit(main())
