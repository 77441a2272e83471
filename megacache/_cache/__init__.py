"""This process's side: `Cache`, and what its verbs do with PyTorch on one hand and a store on the other."""

from megacache._cache import crash_guard
from megacache._cache.blame import blame
from megacache._cache.cache import EXPLAIN_TIMEOUT, PUBLISH_TIMEOUT, WARM_TIMEOUT, Cache
from megacache._cache.explain import Difference, ExplainStatus, Explanation, GraphMiss, anonymizer
from megacache._cache.prefetch import Prefetch
from megacache._cache.receipt import Receipt
from megacache._cache.results import PublishResult, PublishStatus, WarmResult, WarmStatus
from megacache._cache.session import release_leases, take_receipt

__all__ = [
    "EXPLAIN_TIMEOUT",
    "PUBLISH_TIMEOUT",
    "WARM_TIMEOUT",
    "Cache",
    "Difference",
    "ExplainStatus",
    "Explanation",
    "GraphMiss",
    "Prefetch",
    "PublishResult",
    "PublishStatus",
    "Receipt",
    "WarmResult",
    "WarmStatus",
    "anonymizer",
    "blame",
    "crash_guard",
    "release_leases",
    "take_receipt",
]
