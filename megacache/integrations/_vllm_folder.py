"""The folder in which vLLM keeps what it compiles, as a root: what is this process's own, and what came of it."""

import os
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any
from weakref import WeakValueDictionary

from megacache._compiler import roots as known_roots
from megacache._runtime import Deadline, call, kept
from megacache.errors import UnavailableError

ROOT = "vllm"
NO_SETTINGS: Mapping[str, str] = {}
_FOLDER = "torch_compile_cache"
_MODEL = "model"
"""A whole model; vLLM calls its other mode's pieces `artifact_…`."""
_PIECE, _RANK = "artifact_", "rank_"
_HANDLES = "vllm_compile_cache.py"
"""Tells which artifact belongs to which graph, with absolute paths."""
_FOR_PEOPLE = frozenset({"computation_graph.py", "cache_key_factors.json", "transformed_code.py"})
"""Files that vLLM writes and never reads; the second holds variables of the environment."""
_TICK = 0.05
"""Seconds by which the clock of a filesystem is late, at most."""
_SECONDS = 2.0
"""What a disk has to tell the time."""

_folders: dict[Path, None] = kept({})
_configs: list[Any] = kept([])
_compiled: "WeakValueDictionary[Path, Any]" = kept(WeakValueDictionary())
"""The models of this process by the files in which vLLM keeps them."""


def register_root(cache_root: Path, version: str, settings: Mapping[str, str] = NO_SETTINGS) -> None:
    """Register the folder under vLLM's cache folder as a root, for files of one version of vLLM with some settings.

    What lies there by now, vLLM may have compiled under others: it is not published.
    """
    root = known_roots.Root(
        name=ROOT,
        folder=cache_root / _FOLDER,
        facts={**settings, ROOT: version},
        telling=frozenset({_HANDLES}),
        used=partial(used_files, _time_on(cache_root) - _TICK),
        concerns=_concerns,
        models=_models,
    )
    known_roots.register(root)


def _time_on(folder: Path) -> float:
    """Tell the time by the clock of a disk, which, where a server gives it, is not this host's."""

    def look() -> float:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime

    with suppress(OSError, UnavailableError):
        return call(look, deadline=Deadline.after(_SECONDS), doing="using vLLM's cache folder")
    return time.time()


def publish_folder(folder: Path) -> None:
    """Publish the files in a folder that belongs to this process's rank alone."""
    _folders[folder] = None


def publish_configured(config: Any) -> None:
    """Publish the files in the folders that vLLM will make for a configuration."""
    _configs.append(config)


def is_published(config: Any) -> bool:
    """Tell whether that has been said of a configuration."""
    return any(known is config for known in _configs)


def remember(path: Path, model: Any) -> None:
    """Note that vLLM keeps a model of this process in a file."""
    _compiled[path] = model


def used_files(since: float) -> Iterator[Path]:
    """Find the files of this process's ranks that vLLM would read again, and that were written since some time."""
    for path in own_files():
        with suppress(OSError):
            if path.stat().st_mtime >= since and path.name not in _FOR_PEOPLE and _is_loadable(path):
                yield path


def own_files() -> Iterator[Path]:
    """Find all files of this process's ranks."""
    for folder in {**_folders, **dict.fromkeys(_folders_of_configs())}:
        yield from (path for path in sorted(folder.rglob("*")) if path.is_file())


def _folders_of_configs() -> Iterator[Path]:
    for config in _configs:
        # vLLM sets it while it compiles, and appends the part of the model.
        local = Path(getattr(config.compilation_config, "local_cache_dir", None) or "")
        # A folder `rank_…` belongs to one process.
        yield from (one for one in [local, *local.parents] if one.name.startswith(_RANK))


def _is_loadable(path: Path) -> bool:
    """Tell whether vLLM could load a model again: where it traces once, as on a CPU, it saves and cannot."""
    model = _compiled.get(path)
    # As vLLM asks for it when it loads one.
    function = getattr(getattr(getattr(model, "aot_compiled_fn", None), "_artifacts", None), "compiled_fn", None)
    return function is None or hasattr(function, "finalize_loading")


def _concerns(paths: Collection[str]) -> bool:
    """Tell whether files of this process's rank are among those of a bundle, or none of any rank."""
    ranks = {part for path in paths for part in path.split("/") if part.startswith(_RANK)}
    own = {folder.name for folder in tuple(_folders)} | {name for config in tuple(_configs) for name in _rank(config)}
    return not ranks or not own or not ranks.isdisjoint(own)


def _rank(config: Any) -> Iterator[str]:
    with suppress(AttributeError):
        yield f"{_RANK}{config.parallel_config.rank}_{config.parallel_config.data_parallel_index}"


def _models(paths: Collection[str]) -> known_roots.Models:
    """Count the models, or the pieces of models, of this rank that were restored, and those that vLLM has loaded."""
    names = [path.rpartition("/")[2] for path in paths if _RANK in path and _concerns([path])]
    if whole := names.count(_MODEL):
        return known_roots.Models(restored=whole, loaded=_counted("num_aot_artifacts_loaded"))
    pieces = sum(name.startswith(_PIECE) for name in names)
    return known_roots.Models(restored=pieces, loaded=_counted("num_compiled_artifacts_loaded"))


def loaded_models() -> int:
    """Count the models, and the pieces of models, that vLLM says it has loaded."""
    return _counted("num_aot_artifacts_loaded") + _counted("num_compiled_artifacts_loaded")


def _counted(name: str) -> int:
    counter = getattr(sys.modules.get("vllm.compilation.counter"), "compilation_counter", None)
    return int(getattr(counter, name, 0))
