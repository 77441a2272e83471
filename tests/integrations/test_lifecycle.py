"""What a program that starts warm by itself does in threads of its own."""

import queue
from contextvars import ContextVar, copy_context
from typing import Any

import pytest

from megacache import PublishResult, PublishStatus
from megacache._settings import AutostartSettings
from megacache.integrations import _lifecycle

SECONDS = 60.0


def test_publication_has_the_settings_of_the_thread_that_compiled(monkeypatch: pytest.MonkeyPatch) -> None:
    """From 2.13 on, PyTorch keeps its configuration in context variables, which a new thread does not have."""
    setting = ContextVar("setting", default="usual")
    seen: queue.SimpleQueue[str] = queue.SimpleQueue()

    def publish(**_: Any) -> PublishResult:
        seen.put(setting.get())
        return PublishResult(url="", status=PublishStatus.UNCHANGED)

    monkeypatch.setattr(_lifecycle, "publish", publish)
    started = _lifecycle.Autostart(AutostartSettings(publish_after=0))
    for value in ("own", "later"):
        context = copy_context()
        context.run(setting.set, value)
        context.run(started.after_compilation)
        assert seen.get(timeout=SECONDS) == value
