"""Compile once, start warm everywhere: a `torch.compile` cache in any object store.

megacache.warm("s3://bucket/flux/v1")        # before the first compilation
model = torch.compile(model)
with torch.no_grad():
    model(x)                                 # the second process compiles nothing here
megacache.publish("s3://bucket/flux/v1")     # uploads what is new
"""

from typing import TYPE_CHECKING

from megacache._version import __version__

if TYPE_CHECKING:
    from megacache import errors
    from megacache._api import Synchronized, environment, explain, prefetch, publish, receipt, synchronized, warm
    from megacache._bundle import Environment, Mismatch
    from megacache._cache import (
        Cache,
        Difference,
        ExplainStatus,
        Explanation,
        GraphMiss,
        Prefetch,
        PublishResult,
        PublishStatus,
        Receipt,
        WarmResult,
        WarmStatus,
    )
    from megacache._compiler import Folder, Lookups
    from megacache._runtime import Progress
    from megacache.errors import MegacacheError

__all__ = [
    "Cache",
    "Difference",
    "Environment",
    "ExplainStatus",
    "Explanation",
    "Folder",
    "GraphMiss",
    "Lookups",
    "MegacacheError",
    "Mismatch",
    "Prefetch",
    "Progress",
    "PublishResult",
    "PublishStatus",
    "Receipt",
    "Synchronized",
    "WarmResult",
    "WarmStatus",
    "__version__",
    "environment",
    "errors",
    "explain",
    "prefetch",
    "publish",
    "receipt",
    "synchronized",
    "warm",
]

_ROOMS = {
    "_api": ("Synchronized", "environment", "explain", "prefetch", "publish", "receipt", "synchronized", "warm"),
    "_bundle": ("Environment", "Mismatch"),
    "_compiler": ("Folder", "Lookups"),
    "_runtime": ("Progress",),
    "errors": ("MegacacheError",),
}
"""Where names come from when they are first used; all others are from `_cache`."""

if not TYPE_CHECKING:  # type checkers would take any name for one of the package

    def __getattr__(name: str) -> object:
        """Import what is used for the first time: a program that only imports megacache pays nothing for it."""
        if name not in __all__:
            msg = f"module {__name__!r} has no attribute {name!r}"
            raise AttributeError(msg)
        from importlib import import_module

        if name == "errors":
            return import_module("megacache.errors")
        room = next((room for room, names in _ROOMS.items() if name in names), "_cache")
        # Kept, so that Python finds it without asking again.
        value = globals()[name] = getattr(import_module(f"megacache.{room}"), name)
        return value

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
