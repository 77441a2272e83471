"""Keep out of AOTAutograd's cache what calls a function that torch does not look into, at any depth of a graph.

The key holds such a function by its name, so torch takes no graph that calls one. It does not look at the inner graphs,
such as the body of a checkpoint: there a changed function would be a hit, and compute what it computed before.
"""

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from megacache._compiler.door import door
from megacache.errors import CompilerError


@functools.cache
def look_into_inner_graphs() -> None:
    """Have torch ask of the calls in inner graphs what it asks of those in outer ones."""
    with suppress(CompilerError), door("looking into inner graphs"):
        import torch
        from torch._functorch._aot_autograd import autograd_cache

        check: Callable[..., None] = autograd_cache.check_cacheable
        check_node: Callable[..., None] = autograd_cache.check_node_safe

        @functools.wraps(check)
        def check_all(graph: Any, *more: Any, **options: Any) -> None:
            check(graph, *more, **options)
            for inner in graph.modules():
                if inner is not graph and isinstance(inner, torch.fx.GraphModule):
                    for node in inner.graph.nodes:
                        if node.op == "call_function" and not _is_of_torch(node.target):
                            check_node(node)

        cache: Any = autograd_cache
        cache.check_cacheable = check_all


def _is_of_torch(function: Any) -> bool:
    """Tell whether torch's own source, which is in every key, defines a function."""
    return str(getattr(function, "__module__", None) or "torch").partition(".")[0] == "torch"
