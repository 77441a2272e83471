"""What the log is told of each call, and the caller's callback while it works."""

import logging

from megacache._explanation import Explanation
from megacache._receipt import Receipt
from megacache._results import PublishResult, WarmResult

_log = logging.getLogger("megacache")


def report(verb: str, result: WarmResult | PublishResult) -> None:
    """Log how a call ended."""
    level = logging.WARNING if result.error is not None else logging.INFO
    _log.log(
        level,
        "%s %s: url=%s artifacts=%d files=%d bytes=%d reason=%s",
        verb,
        result.status,
        result.url,
        sum(result.artifacts.values()),
        result.files,
        result.bytes_stored,
        result.reason,
    )
    for warning in result.warnings:
        _log.warning("%s: url=%s warning=%s", verb, result.url, warning)


def report_worth(url: str, receipt: Receipt) -> None:
    """Log what the warm starts were worth."""
    _log.info("receipt: url=%s verdict=%s", url, receipt)
    for warning in receipt.warnings:
        _log.warning("receipt: url=%s warning=%s", url, warning)


def report_explanation(found: Explanation) -> None:
    """Log how many graphs missed."""
    _log.info("explain %s: url=%s misses=%d reason=%s", found.status, found.url, len(found.misses), found.reason)
