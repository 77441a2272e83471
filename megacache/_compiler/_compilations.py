"""Observe when this process begins to compile, and when it has ended.

torch keeps callbacks for this, but drops them in `torch._dynamo.reset()`; so the functions that run the callbacks are
wrapped, and each still does what it did.
"""

import functools
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from megacache._compiler._door import door


def on_compilations(begins: Callable[[], None], ends: Callable[[], None]) -> None:
    """Call `begins` before a compilation and `ends` after it, in the thread that compiles.

    Of compilations that overlap, only the first beginning and the last end are told. What the two raise is dropped.
    Raises `CompilerError` if this torch cannot be heard.
    """
    with door("listening to its compilations"):
        from torch._dynamo import callback

        Handler: Any = callback.CompilationCallbackHandler  # noqa: N806 - a class
        first, last = Handler.run_start_callbacks, Handler.run_end_callbacks

        @functools.wraps(first)
        def start(handler: Any, *details: Any) -> Any:
            with suppress(Exception):
                begins()
            return first(handler, *details)

        @functools.wraps(last)
        def end(handler: Any, *details: Any) -> Any:
            try:
                return last(handler, *details)
            finally:
                with suppress(Exception):
                    ends()

        Handler.run_start_callbacks, Handler.run_end_callbacks = start, end


def current_device() -> int | None:
    """Tell the GPU that this thread uses; None if it uses none yet."""
    with door("asking for its device"):
        import torch

        cuda: Any = torch.cuda
        return cuda.current_device() if cuda.is_initialized() else None


def use_device(device: int | None) -> None:
    """Let this thread use the GPU that another one uses: each thread begins with the first."""
    with door("choosing its device"):
        import torch

        cuda: Any = torch.cuda
        if device is not None and cuda.is_initialized():
            cuda.set_device(device)
