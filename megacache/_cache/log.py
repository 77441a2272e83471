"""What the log says of each call: one line, and one for each warning."""

import logging

from megacache._cache.explain import Explanation
from megacache._cache.receipt import Receipt
from megacache._cache.results import PublishResult, WarmResult

_log = logging.getLogger("megacache")
# A program that sets up no logging would see warnings on stderr.
_log.addHandler(logging.NullHandler())


def log_result(verb: str, result: WarmResult | PublishResult) -> None:
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


def log_worth(url: str, receipt: Receipt) -> None:
    """Log the verdict of a receipt, and its warnings."""
    _log.info("receipt: url=%s verdict=%s", url, receipt)
    for warning in receipt.warnings:
        _log.warning("receipt: url=%s warning=%s", url, warning)


def log_explanation(found: Explanation) -> None:
    """Log how many graphs missed."""
    _log.info("explain %s: url=%s misses=%d reason=%s", found.status, found.url, len(found.misses), found.reason)
