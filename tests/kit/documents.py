"""Read what the documents show: their blocks, and what of printed lines is the same in every run."""

import re
from pathlib import Path

from tests.kit.processes import REPOSITORY

README = REPOSITORY / "README.md"
DOCUMENTS = tuple(
    sorted(
        {README, REPOSITORY / "CHANGELOG.md", *REPOSITORY.glob(".github/*.md"), *REPOSITORY.glob("examples/**/*.md")}
    )
)
"""All that people read."""
_VARYING = re.compile(r"(?<=graph )\w{12}|(?<=against )\w{12}|\b[0-9a-f]{12}\b|\d[\d.,]*| +")


def blocks(document: Path, language: str) -> list[str]:
    """Give the blocks of one language, in their order."""
    return re.findall(rf"^```{language}\n(.*?)^```$", document.read_text(), re.MULTILINE | re.DOTALL)


def alike(printed: str) -> list[str]:
    """Take out of each line what differs from run to run: numbers, ids and the width of columns."""
    return [_VARYING.sub(" ", line).strip() for line in printed.splitlines()]
