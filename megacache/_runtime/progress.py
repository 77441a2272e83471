"""The progress of a long call, and the callback that it is reported to."""

import logging
from collections.abc import Callable
from dataclasses import dataclass

_log = logging.getLogger("megacache")


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """One step of a long call."""

    stage: str
    """`download` or `upload`; commands also have `copy`, `verify`, `remove` and `sign`."""
    done: int
    """Bytes so far, as stored, or raw for an upload; objects for `remove` and `sign`."""
    total: int
    """The same when all is done."""


ProgressCallback = Callable[[Progress], None]


def quiet(progress: ProgressCallback | None) -> ProgressCallback:
    """Log what the caller's callback raises: the call goes on."""

    def tell(step: Progress) -> None:
        if progress is None:
            return
        try:
            progress(step)
        except Exception:  # noqa: BLE001 - whatever it was, the transfer goes on
            _log.warning("progress callback failed: stage=%s", step.stage, exc_info=True)

    return tell
