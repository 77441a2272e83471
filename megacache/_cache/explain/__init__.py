"""Why graphs missed: what their keys are made of, the nearest published graph, and the answer."""

from megacache._cache.explain.data import anonymizer, explain_payloads
from megacache._cache.explain.explanation import Difference, ExplainStatus, Explanation, GraphMiss
from megacache._cache.explain.misses import explain

__all__ = [
    "Difference",
    "ExplainStatus",
    "Explanation",
    "GraphMiss",
    "anonymizer",
    "explain",
    "explain_payloads",
]
