"""Wait until a program imports PyTorch's compiler; until then, cost nothing and import nothing."""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:  # importing them costs milliseconds at each start
    from collections.abc import Sequence
    from importlib.machinery import ModuleSpec
    from types import ModuleType
    from typing import Any

_LIBRARY, _COMPILER = "torch", "torch._dynamo"


def watch() -> None:
    """Let megacache start by itself in this process at the moment at which it imports PyTorch's compiler."""
    if _COMPILER in sys.modules:
        _autostart()
        return
    if _LIBRARY in sys.modules:
        handle_sigterm()
    if not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder:
    """Sees one import pass by, and goes."""

    _looking = False

    def find_spec(
        self, name: str, path: "Sequence[str] | None" = None, target: "ModuleType | None" = None, /
    ) -> "ModuleSpec | None":
        """Find nothing but the compiler, and that as others would."""
        del path, target
        if name == _LIBRARY:
            handle_sigterm()
        if name != _COMPILER or self._looking:
            return None
        import importlib.util

        self._looking = True
        try:
            spec = importlib.util.find_spec(name)
        finally:
            self._looking = False
        loader: Any = spec and spec.loader
        if loader is not None:
            load = loader.exec_module

            def exec_module(module: "ModuleType") -> None:
                del loader.exec_module
                if self in sys.meta_path:
                    sys.meta_path.remove(self)
                load(module)
                _autostart()

            loader.exec_module = exec_module
        return spec


def handle_sigterm() -> None:
    """Let a process that is told to terminate publish first.

    This is done when PyTorch is imported, for when its compiler is, a server may have taken the signal over already: it
    gives it back at its end, and raises it.
    """
    import os
    import signal
    import threading

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
            os.kill(os.getpid(), number)

    signal.signal(signal.SIGTERM, terminate)


def _autostart() -> None:
    try:
        from megacache.integrations._lifecycle import autostart

        autostart()
        handle_sigterm()
    except Exception as error:  # noqa: BLE001 - whatever is wrong with megacache, the program goes on
        sys.stderr.write(f"megacache: this process starts cold: {type(error).__name__}: {error}\n")
