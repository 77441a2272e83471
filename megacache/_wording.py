"""How things are said in English."""


def counted(count: int, noun: str) -> str:
    """Say how many."""
    return f"{count} {noun if count == 1 else f'{noun}s'}"
