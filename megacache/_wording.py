"""How things are said in English."""

MAX_SHOWN = 200
"""Characters of a text that somebody else wrote."""


def counted(count: int, noun: str) -> str:
    """Say how many."""
    return f"{count} {noun if count == 1 else f'{noun}s'}"


def shown(text: str) -> str:
    """Fit a text into a line; what a store holds may be long, and may hold what a terminal obeys."""
    text = "".join(character if character.isprintable() else " " for character in text)
    return text if len(text) <= MAX_SHOWN else f"{text[: MAX_SHOWN - 1]}…"
