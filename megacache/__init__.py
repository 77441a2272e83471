"""Compile once, start warm everywhere: a `torch.compile` cache in any object store.

megacache.warm("s3://bucket/flux/v1")        # before the first compilation
model = torch.compile(model)
with torch.no_grad():
    model(x)                                 # the second process compiles nothing here
megacache.publish("s3://bucket/flux/v1")     # uploads what is new
"""

from megacache import errors
from megacache._api import Synchronized, environment, explain, publish, receipt, synchronized, warm
from megacache._bundle import Environment, Mismatch
from megacache._cache import (
    Cache,
    Difference,
    ExplainStatus,
    Explanation,
    GraphMiss,
    PublishResult,
    PublishStatus,
    Receipt,
    WarmResult,
    WarmStatus,
)
from megacache._compiler import Lookups
from megacache._runtime import Progress
from megacache._version import __version__
from megacache.errors import MegacacheError

__all__ = [
    "Cache",
    "Difference",
    "Environment",
    "ExplainStatus",
    "Explanation",
    "GraphMiss",
    "Lookups",
    "MegacacheError",
    "Mismatch",
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
    "publish",
    "receipt",
    "synchronized",
    "warm",
]
