"""Texts: counts in English, and text that somebody else wrote, made fit to be shown, or read as a date."""

from datetime import UTC, datetime

MAX_SHOWN = 200
"""Characters of a text that somebody else wrote."""

MAX_SHORT_TEXT = 1_000
"""Characters of a short text, at most."""


def counted(count: int, noun: str) -> str:
    """Say how many."""
    return f"{count} {noun if count == 1 else f'{noun}s'}"


def shown(text: str) -> str:
    """Fit a text into a line; text from a store may be long, and may hold control characters."""
    text = printable(text)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"


def printable(text: str) -> str:
    """Replace control characters, which a terminal obeys: whoever may write to the store chooses names and labels."""
    return "".join(character if character.isprintable() else " " for character in text)


def is_short_text(value: object) -> bool:
    """Tell whether a value is text that can be written as UTF-8, of at most 1,000 characters."""
    if not isinstance(value, str) or len(value) > MAX_SHORT_TEXT:
        return False
    # A lone surrogate has no form in UTF-8: `replace` writes a question mark for it.
    return value.isascii() or value == value.encode(errors="replace").decode()


def moment_of(text: str) -> datetime | None:
    """Read a date in ISO 8601, which is in UTC if it does not say otherwise; None if it is not one."""
    try:
        moment = datetime.fromisoformat(text)
        return moment.astimezone(UTC) if moment.tzinfo else moment.replace(tzinfo=UTC)
    except (ValueError, OverflowError):  # the first and the last day that Python knows may lie in no year of UTC
        return None
