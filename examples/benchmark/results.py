"""The file that keeps what was measured."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from examples.benchmark.samples import Sample

_FORMAT = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class Results:
    """Every sample, and what they depend on."""

    facts: Mapping[str, Any]
    """The machine, the versions, the command and what was left out."""
    samples: Sequence[Sample]

    def of(self, section: str) -> Sequence[Sample]:
        """Give the samples of one section."""
        return [sample for sample in self.samples if sample.section == section]


def write(path: Path, results: Results) -> None:
    """Keep results in a file, at once."""
    document = {"format": _FORMAT, **results.facts, "samples": [asdict(sample) for sample in results.samples]}
    path.parent.mkdir(parents=True, exist_ok=True)
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document, indent=1) + "\n")
    fresh.replace(path)


def read(path: Path) -> Results:
    """Read what was kept; raise ValueError for another format."""
    document = json.loads(path.read_text())
    if (found := document.pop("format")) != _FORMAT:
        raise ValueError(f"{path} is of format {found}, not {_FORMAT}: measure again")
    samples = [Sample(**sample) for sample in document.pop("samples")]
    return Results(facts=document, samples=samples)
