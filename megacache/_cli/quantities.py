"""Spans of time and sizes, as people write them: a number and a unit, without a blank between them."""

import re
from collections.abc import Mapping

import click

_SECONDS = {"s": 1, "min": 60, "h": 3_600, "d": 86_400}
_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}


def span(text: str) -> float:
    """Read a span of time, in seconds."""
    return _quantity(text, _SECONDS, "90d")


def size(text: str) -> int:
    """Read a size, in bytes."""
    return int(_quantity(text, _BYTES, "50GB"))


def _quantity(text: str, units: Mapping[str, int], example: str) -> float:
    if text == "0":
        return 0
    match = re.fullmatch(r"(\d{1,15}(?:\.\d{1,15})?)([A-Za-z]+)", text)
    if match is None or match[2] not in units:
        raise click.BadParameter(f"{text!r} is not a number and one of {', '.join(units)}, such as {example}")
    return float(match[1]) * units[match[2]]
