"""Make vLLM start warm: the folder in which it keeps what it compiles is a root of its own.

vLLM loads this as a plug-in in each of its processes, also in the one that serves and forks. `register` only sets
hooks: neither the device nor the store is touched before a model is about to be loaded or compiled.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from megacache import _compiler
from megacache._compiler import roots as known_roots
from megacache._runtime import kept
from megacache._settings import Settings
from megacache._store import without_secrets
from megacache.errors import SettingsError
from megacache.integrations._lifecycle import autostart
from megacache.integrations.site.megacache_on_compile import AfterImport, handle_sigterm

_log = logging.getLogger("megacache")

ROOT = "vllm"
_FOLDER = "torch_compile_cache"
_SUPPORTED = "0.33"
# Private to vLLM; they are in 0.32 and 0.33.
_MODELS, _LOAD, _COMPILED = (
    "vllm.compilation.decorators",
    "_try_load_aot_compiled_fn",
    "TorchCompileWithNoGuardsWrapper",
)
_GRAPHS, _ADAPTOR = "vllm.compilation.compiler_interface", "InductorStandaloneAdaptor"
_HANDLES = "vllm_compile_cache.py"
"""Tells which artifact belongs to which graph, with absolute paths."""
_FOR_PEOPLE = frozenset({"computation_graph.py", "cache_key_factors.json", "transformed_code.py"})
"""Files that vLLM writes and never reads; the second holds variables of the environment."""

_folders: dict[Path, None] = kept({})
_configs: list[Any] = kept([])


def register() -> None:
    """Set the hooks; vLLM's loader of plug-ins calls this. Without `MEGACACHE_URL` it does nothing."""
    try:
        settings = Settings.read()
    except SettingsError as error:  # an exception here would end vLLM
        _log.warning("vLLM starts cold: %s", error)
        return
    if settings.url is None or settings.disabled:
        return
    for name in _HOOKS.keys() & sys.modules.keys():
        _hook(name, sys.modules[name])
    _finder.install()


def _hook(name: str, module: ModuleType) -> None:
    try:
        _HOOKS[name](module)
    except Exception as error:  # noqa: BLE001 - vLLM goes on without a cache
        _log.warning(
            "vLLM starts cold: module=%s error=%s: %s", name, type(error).__name__, without_secrets(str(error))
        )


def _hook_models(module: Any) -> None:
    """Warm before vLLM loads a compiled model, and before it calls one that it may have to compile."""
    load, compiled = getattr(module, _LOAD, None), getattr(module, _COMPILED, None)
    if load is None or compiled is None:
        _log.warning(
            "vLLM starts cold: megacache does not support this version of it; use vLLM %s, or upgrade megacache",
            _SUPPORTED,
        )
        return
    if not _is_hooked(load):
        setattr(module, _LOAD, _warm_before_loading(load))
        compiled.__call__ = _warm_before_calling(compiled.__call__)


def _hook_graphs(module: Any) -> None:
    # A graph that vLLM loads from its folder is published with the folder, and need not be an artifact as well.
    adaptor = getattr(module, _ADAPTOR, None)
    if adaptor is not None and not _is_hooked(adaptor.load):
        adaptor.load = _unrecorded(adaptor.load)


# Importing these modules here would bring in PyTorch's compiler.
_HOOKS: Mapping[str, Callable[[Any], None]] = {_MODELS: _hook_models, _GRAPHS: _hook_graphs}
_finder = AfterImport({name: partial(_hook, name) for name in _HOOKS})


def _is_hooked(function: Callable[..., Any]) -> bool:
    # vLLM may load a plug-in several times in one process.
    return function.__module__ == __name__


def _warm_before_loading(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_after_warming(model: Any, aot_compilation_path: str, *args: Any, **kwargs: Any) -> Any:
        _warm(model.vllm_config)
        publish_folder(Path(aot_compilation_path).parent)
        return load(model, aot_compilation_path, *args, **kwargs)

    return load_after_warming


def _warm_before_calling(call: Callable[..., Any]) -> Callable[..., Any]:
    def call_after_warming(model: Any, *args: Any, **kwargs: Any) -> Any:
        _warm(model.vllm_config)
        return call(model, *args, **kwargs)

    return call_after_warming


def _unrecorded(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_unrecorded(*args: Any, **kwargs: Any) -> Any:
        with _compiler.unrecorded():
            return load(*args, **kwargs)

    return load_unrecorded


def _warm(config: Any) -> None:
    if any(known is config for known in _configs):
        return
    _configs.append(config)
    try:
        import vllm
        from vllm import envs

        # The root comes first: a warm start restores files of the roots that it knows.
        register_root(Path(envs.VLLM_CACHE_ROOT), str(vllm.__version__))
        handle_sigterm()
        autostart().warm()
    except Exception as error:  # noqa: BLE001 - a server without a cache is better than none
        _log.warning("vLLM starts cold: error=%s: %s", type(error).__name__, without_secrets(str(error)))


def register_root(cache_root: Path, version: str) -> None:
    """Register the folder under vLLM's cache folder as a root, for files of one version of vLLM."""
    root = known_roots.Root(
        name=ROOT,
        folder=cache_root / _FOLDER,
        facts={ROOT: version},
        telling=frozenset({_HANDLES}),
        used=used_files,
    )
    known_roots.register(root)


def publish_folder(folder: Path) -> None:
    """Publish the files in a folder that belongs to this process's rank alone."""
    _folders[folder] = None


def used_files() -> Iterator[Path]:
    """Find the files of this process's ranks that vLLM would read again."""
    for folder in {**_folders, **dict.fromkeys(_folders_of_configs())}:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in _FOR_PEOPLE:
                yield path


def _folders_of_configs() -> Iterator[Path]:
    for config in _configs:
        # vLLM sets it while it compiles, and appends the part of the model.
        local = Path(getattr(config.compilation_config, "local_cache_dir", None) or "")
        # A folder `rank_…` belongs to one process.
        yield from (one for one in [local, *local.parents] if one.name.startswith("rank_"))
