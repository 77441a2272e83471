"""Start megacache once the program imports PyTorch's compiler; until then, cost nothing and import nothing."""

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing them costs milliseconds at each start
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any


class AfterImport:
    """A finder on `sys.meta_path` that calls a function after a module has been imported."""

    def __init__(self, calls: "Mapping[str, Callable[[ModuleType], None]]") -> None:
        self._calls = calls
        self._looking: set[str] = set()

    def install(self) -> None:
        """Go in front of all other finders, unless that is done."""
        if self not in sys.meta_path:
            sys.meta_path.insert(0, self)

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None, /
    ) -> "ModuleSpec | None":
        """Let the other finders find the module, and add the call to its loader."""
        del path, target
        call = self._calls.get(name)
        if call is None or name in self._looking:
            return None
        import importlib.util

        # `find_spec` asks all finders, this one among them.
        self._looking.add(name)
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking.discard(name)
        loader: Any = spec and spec.loader
        if loader is not None:
            execute = loader.exec_module

            def exec_module(module: "ModuleType") -> None:
                # A module that is reloaded does not start anything again.
                del loader.exec_module
                execute(module)
                call(module)

            loader.exec_module = exec_module
        return spec


def watch() -> None:
    """Start megacache in this process as soon as it has imported PyTorch's compiler, or another one with a folder."""
    for name, call in _CALLS.items():
        if name in sys.modules:
            call(sys.modules[name])
    _finder.install()


def handle_sigterm(_: object = None) -> None:
    """Let a process that is told to terminate publish first.

    The handler is there as soon as PyTorch is: a server that takes the signal over later gives it back at its end, and
    raises it again.
    """
    import signal
    import threading

    # Python takes handlers from the main thread only.
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return

    def terminate(number: int, frame: object) -> None:
        del frame
        signal.signal(number, signal.SIG_DFL)  # a second one does not wait
        lifecycle = sys.modules.get("megacache.integrations._lifecycle")
        try:
            if lifecycle is not None:
                lifecycle.autostart().finish()
        finally:
            # A parent learns the signal only from a process that dies of it.
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, terminate)


def _autostart(_: object) -> None:
    _with_lifecycle(lambda lifecycle: lifecycle.autostart())


def _warm(_: object) -> None:
    # Only PyTorch's compiler tells before it compiles.
    _with_lifecycle(lambda lifecycle: lifecycle.autostart().warm())


def _with_lifecycle(step: "Callable[[Any], object]") -> None:
    try:
        # It leads to `_autostart`, unless it is there: a call of that within another would make two of its kind.
        import torch._dynamo  # noqa: F401 - as said above

        from megacache.integrations import _lifecycle

        step(_lifecycle)
        handle_sigterm()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with megacache, the program goes on
        sys.stderr.write(f"megacache: this process starts cold: {type(error).__name__}: {_words(error)}\n")


def _words(error: Exception) -> str:
    try:
        from megacache._store import without_secrets
    except ImportError:  # the error may be that megacache cannot be imported
        return str(error)
    return without_secrets(str(error))


def _with_folders() -> "Mapping[str, Callable[[ModuleType], None]]":
    words = os.environ.get("MEGACACHE_FOLDERS", "").split(os.pathsep)
    names = [word.partition("=")[0] for word in words if word]
    return {_MODULES.get(name, name): _warm for name in names}


_MODULES = {"cpp_extension": "torch.utils.cpp_extension", "cute_dsl": "cutlass"}
"""What a program imports to use a compiler; it is called like its folder otherwise."""
_CALLS: "Mapping[str, Callable[[ModuleType], None]]" = {
    "torch": handle_sigterm,
    "torch._dynamo": _autostart,
    **_with_folders(),
}
_finder = AfterImport(_CALLS)
