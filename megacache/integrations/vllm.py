"""Make vLLM start warm: the folder in which it keeps what it compiles is a root of its own.

vLLM loads this as a plug-in in each of its processes, also in the one that serves and forks. `register` only sets
hooks: neither the device nor the store is touched before a model is about to be loaded or compiled.
"""

import logging
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any
from weakref import WeakSet

from megacache import _compiler
from megacache._cache import blame, crash_guard
from megacache._runtime import kept
from megacache._settings import AutostartSettings, Settings
from megacache._store import without_secrets
from megacache.errors import SettingsError
from megacache.integrations import _vllm_folder
from megacache.integrations._lifecycle import autostart
from megacache.integrations._stderr import is_shown, log_to_stderr
from megacache.integrations._vllm_facts import settings_facts
from megacache.integrations._vllm_folder import ROOT, publish_folder, register_root
from megacache.integrations.site.megacache_on_compile import AfterImport, handle_sigterm

__all__ = ["publish_folder", "register", "register_root"]

_log = logging.getLogger("megacache")

_SUPPORTED = "0.33"
# Private to vLLM; they are in 0.32 and 0.33.
_MODELS, _LOAD, _COMPILED = (
    "vllm.compilation.decorators",
    "_try_load_aot_compiled_fn",
    "TorchCompileWithNoGuardsWrapper",
)
_GRAPHS, _ADAPTOR = "vllm.compilation.compiler_interface", "InductorStandaloneAdaptor"
_BLAMELESS = frozenset({"DistError", "MemoryError", "OutOfMemoryError"})
"""Exceptions that tell of a lack of memory, or of another rank, and not of what was restored."""
_NOTE = "megacache does not restore the files again that this model was loaded from; its log names their bundle"

_called: "WeakSet[Any]" = kept(WeakSet())
"""Models that have been called once, and went well."""


def register() -> None:
    """Set the hooks; vLLM's loader of plug-ins calls this. Without `MEGACACHE_URL` it does nothing.

    vLLM shows its own log alone: without `MEGACACHE_LOG`, that of megacache goes to stderr from level info on.
    """
    try:
        settings, level = Settings.read(), AutostartSettings.read().log
    except SettingsError as error:  # an exception here would end vLLM
        _show_log(None)
        _log.warning("vLLM starts cold: %s", error)
        return
    if settings.url is None or settings.disabled:
        return
    _show_log(level)
    for name in _HOOKS.keys() & sys.modules.keys():
        _hook(name, sys.modules[name])
    _finder.install()


def _show_log(level: str | None) -> None:
    if level is not None or not is_shown():
        log_to_stderr(level or "info")


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
        path = Path(aot_compilation_path)
        _softly(lambda: _before_loading(model, path))
        with _blamed("loading", [path]):
            loaded = load(model, aot_compilation_path, *args, **kwargs)
        if loaded is None:  # vLLM logs why, and compiles
            _softly(crash_guard.disarm_all_later)
            _softly(lambda: _blame("loading", [path]))
            return None
        return _FirstCall(model, loaded, path)

    return load_after_warming


def _before_loading(model: Any, path: Path) -> None:
    publish_folder(path.parent)
    _vllm_folder.remember(path, model)
    _warm(model.vllm_config, model)
    # No compilation tells that something restored is used.
    crash_guard.arm_all()


def _after_loading() -> None:
    crash_guard.disarm_all_later()
    # Nothing was compiled, which is worth a receipt.
    autostart().after_compilation()


class _FirstCall:
    """Stands for what vLLM has loaded until it has been called once."""

    def __init__(self, model: Any, loaded: Any, path: Path) -> None:
        self._model = model
        self._loaded = loaded
        self._path = path

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        with _blamed("calling", [self._path]):
            output = self._loaded(*args, **kwargs)
        if getattr(self._model, "aot_compiled_fn", None) is self:
            self._model.aot_compiled_fn = self._loaded
            _softly(_after_loading)
        return output

    def __getattr__(self, name: str) -> Any:
        return getattr(self._loaded, name)


def _warm_before_calling(call: Callable[..., Any]) -> Callable[..., Any]:
    def call_after_warming(model: Any, *args: Any, **kwargs: Any) -> Any:
        if model in _called:
            return call(model, *args, **kwargs)
        _softly(lambda: _warm(model.vllm_config, model))
        with _blamed("calling", None, if_loaded=True):
            output = call(model, *args, **kwargs)
        _called.add(model)
        return output

    return call_after_warming


def _unrecorded(load: Callable[..., Any]) -> Callable[..., Any]:
    def load_unrecorded(*args: Any, **kwargs: Any) -> Any:
        with _compiler.unrecorded(), _blamed("loading", None):
            return load(*args, **kwargs)

    return load_unrecorded


@contextmanager
def _blamed(doing: str, paths: Collection[Path] | None, *, if_loaded: bool = False) -> Iterator[None]:
    """Blame what was restored for an exception; None stands for all of it, perhaps only if vLLM has loaded some."""
    try:
        yield
    except Exception as error:
        lacks = any(one.__name__ in _BLAMELESS for one in type(error).__mro__)
        known = _NOTE in getattr(error, "__notes__", ())
        if not (lacks or known or (if_loaded and not _vllm_folder.loaded_models())):
            error.add_note(_NOTE)
            _softly(lambda: _blame(doing, paths))
        raise


def _blame(doing: str, paths: Collection[Path] | None) -> None:
    files = list(_vllm_folder.own_files()) if paths is None else paths
    blame(ROOT, files, f"{doing} what it holds failed, and vLLM logs why")


def _softly(step: Callable[[], None]) -> None:
    try:
        step()
    except Exception as error:  # noqa: BLE001 - a server without a cache is better than none
        _log.warning("vLLM goes on without megacache: %s: %s", type(error).__name__, without_secrets(str(error)))


def _warm(config: Any, model: Any) -> None:
    if _vllm_folder.is_published(config):
        return
    _vllm_folder.publish_configured(config)
    import vllm
    from vllm import envs

    # The root comes first: a warm start restores files of the roots that it knows. The first configuration is the
    # server's; vLLM derives others from it, such as that of a draft model.
    if _compiler.roots.find(ROOT) is None:
        register_root(Path(envs.VLLM_CACHE_ROOT), str(vllm.__version__), settings_facts(config, model))
    handle_sigterm()
    autostart().warm()
