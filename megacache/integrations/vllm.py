"""vLLM: the folder in which it keeps what it compiles travels as a root of its own.

vLLM loads this as a plug-in in each of its processes, the one that serves and forks among them. Only hooks are set
there. The device is touched, and the store asked, where a model is about to be loaded or compiled.
"""

import logging
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path
from types import ModuleType
from typing import Any

from megacache import _compiler
from megacache._compiler import roots as known_roots
from megacache._settings import Settings
from megacache.errors import SettingsError
from megacache.integrations._lifecycle import autostart
from megacache.integrations.site.megacache_on_compile import handle_sigterm

_log = logging.getLogger("megacache")

ROOT = "vllm"
_FOLDER = "torch_compile_cache"
_MODELS, _LOAD, _COMPILED = (
    "vllm.compilation.decorators",
    "_try_load_aot_compiled_fn",
    "TorchCompileWithNoGuardsWrapper",
)
_GRAPHS, _ADAPTOR = "vllm.compilation.compiler_interface", "InductorStandaloneAdaptor"
_HANDLES = "vllm_compile_cache.py"
"""Tells which artifact belongs to which graph, with absolute paths."""
_FOR_PEOPLE = frozenset({"computation_graph.py", "cache_key_factors.json", "transformed_code.py"})
"""What vLLM writes and never reads; the second holds variables of the environment."""

_folders: dict[Path, None] = {}
_configs: list[Any] = []


def register() -> None:
    """Set the hooks; vLLM's loader of plug-ins calls this. Without `MEGACACHE_URL` it does nothing."""
    try:
        settings = Settings.read()
    except SettingsError as error:  # an exception here would end vLLM
        _log.warning("vLLM is not served: error=%s", error)
        return
    if settings.url is None or settings.disabled:
        return
    for name in _HOOKS.keys() & sys.modules.keys():
        _hook(name, sys.modules[name])
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


def carry(cache_root: Path, version: str) -> None:
    """Register the folder under vLLM's cache folder, for files of one version of it."""
    root = known_roots.Root(
        name=ROOT,
        folder=cache_root / _FOLDER,
        facts={ROOT: version},
        telling=frozenset({_HANDLES}),
        used=used_files,
    )
    known_roots.register(root)


def note(folder: Path) -> None:
    """Note a folder that this process, by its rank, reads and writes alone."""
    _folders[folder] = None


def used_files() -> Iterator[Path]:
    """Find the files of this process's ranks that vLLM would read again."""
    for folder in {**_folders, **dict.fromkeys(_folders_of_configs())}:
        for path in sorted(folder.rglob("*")):
            if path.is_file() and path.name not in _FOR_PEOPLE:
                yield path


def _folders_of_configs() -> Iterator[Path]:
    for config in _configs:
        # vLLM decides on it while it compiles, and appends the part of the model.
        local = Path(getattr(config.compilation_config, "local_cache_dir", None) or "")
        yield from (one for one in [local, *local.parents] if one.name.startswith("rank_"))


class _Finder(MetaPathFinder):
    """Sets a hook as soon as vLLM imports what is hooked: importing it here would bring in PyTorch's compiler."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """Find a module as usual, and see to what follows its execution."""
        if fullname not in _HOOKS:
            return None
        spec = PathFinder.find_spec(fullname, path, target)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def execute_and_hook(module: ModuleType) -> None:
                execute(module)
                _hook(fullname, module)

            spec.loader.exec_module = execute_and_hook  # type: ignore[method-assign]
        return spec


def _hook(name: str, module: ModuleType) -> None:
    try:
        _HOOKS[name](module)
    except Exception as error:  # noqa: BLE001 - vLLM goes on without a cache
        _log.warning("vLLM is not served: module=%s error=%s: %s", name, type(error).__name__, error)


def _hook_models(module: Any) -> None:
    """Be told of the two ways in which vLLM comes to a compiled model: one that it loads, and one that it traces."""
    load, compiled = getattr(module, _LOAD, None), getattr(module, _COMPILED, None)
    if load is None or compiled is None:
        _log.warning("vLLM is not served: this version of it compiles in another way than those that are known")
        return
    if not _hooked(load):
        setattr(module, _LOAD, _before_loading(load))
        compiled.__call__ = _before_calling(compiled.__call__)


def _hook_graphs(module: Any) -> None:
    """Let PyTorch not record a graph that vLLM loads from its folder, or it would travel twice."""
    adaptor = getattr(module, _ADAPTOR, None)
    if adaptor is not None and not _hooked(adaptor.load):
        adaptor.load = _unrecorded(adaptor.load)


_HOOKS: Mapping[str, Callable[[Any], None]] = {_MODELS: _hook_models, _GRAPHS: _hook_graphs}


def _hooked(function: Callable[..., Any]) -> bool:
    return function.__module__ == __name__


def _before_loading(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_after_warming(model: Any, aot_compilation_path: str, *args: Any, **kwargs: Any) -> Any:
        _begin(model.vllm_config)
        note(Path(aot_compilation_path).parent)
        return load(model, aot_compilation_path, *args, **kwargs)

    return load_after_warming


def _before_calling(call: Callable[..., Any]) -> Callable[..., Any]:
    def call_after_warming(model: Any, *args: Any, **kwargs: Any) -> Any:
        _begin(model.vllm_config)
        return call(model, *args, **kwargs)

    return call_after_warming


def _unrecorded(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_unrecorded(*args: Any, **kwargs: Any) -> Any:
        with _compiler.unrecorded():
            return load(*args, **kwargs)

    return load_unrecorded


def _begin(config: Any) -> None:
    """Warm this process at the first model that it comes to."""
    if any(known is config for known in _configs):
        return
    _configs.append(config)
    try:
        import vllm
        from vllm import envs

        carry(Path(envs.VLLM_CACHE_ROOT), str(vllm.__version__))
        handle_sigterm()
        autostart().warm()
    except Exception as error:  # noqa: BLE001 - a server without a cache is better than none
        _log.warning("vLLM starts without its cache: error=%s: %s", type(error).__name__, error)
