"""What a run sets out to measure, what it has found so far, and what it leaves out."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol

from examples.benchmark.bench import Bench
from examples.benchmark.results import Results, write
from examples.benchmark.samples import Failure, Sample, Step


class Section(Protocol):
    """A module that measures one thing."""

    SECTION: str

    def planned(self, bench: Bench) -> Sequence[Step]:
        """List what is measured, in its order."""

    def measure(self, bench: Bench) -> Iterator[Sample | Failure]:
        """Do so, step by step; each gives a sample or fails."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """All that one run has to say, kept in a file that is whole at every moment."""

    path: Path
    facts: Mapping[str, Any]
    planned: Sequence[Step]
    lacking: Mapping[str, str] = field(default_factory=dict)
    """What cannot be measured here, with the reason."""
    budget: float | None = None
    """Seconds; None if there is no bound."""
    found: list[Sample | Failure] = field(default_factory=list)

    @property
    def failed(self) -> bool:
        """Tell whether any step has failed."""
        return any(isinstance(one, Failure) for one in self.found)

    def add(self, found: Sample | Failure) -> None:
        """Take what a step gave, and write all at once, in case there is no later moment."""
        self.found.append(found)
        self.write()

    def write(self) -> None:
        """Keep in the file what there is."""
        write(self.path, self.results())

    def results(self) -> Results:
        """Give what was found, and name what was left out, as a run would that ended now."""
        samples = [one for one in self.found if isinstance(one, Sample)]
        return Results(facts={**self.facts, "left_out": {**self.lacking, **dict(self._left_out())}}, samples=samples)

    def _left_out(self) -> Iterator[tuple[str, str]]:
        """Name what gave no sample, with the reason: a case as a whole, or those of its variants."""
        measured = {one.step for one in self.found if isinstance(one, Sample)}
        failed = {one.step: f"which failed: {one.reason}" for one in self.found if isinstance(one, Failure)}
        short = "not reached" if self.budget is None else f"not reached within {self.budget:g} s"
        several_rounds = any(step.round for step in self.planned)
        for case, steps in groupby(self.planned, key=lambda step: step._replace(variant="")):
            whole = list(steps)
            turn = f", round {case.round + 1}" if several_rounds else ""
            name = f"{case.section}, {case.case}{turn}"
            reasons: dict[str, list[str]] = {}
            for step in whole:
                if step not in measured:
                    reasons.setdefault(failed.get(step, short), []).append(step.variant)
            for reason, variants in reasons.items():
                yield (name if len(variants) == len(whole) else f"{name}: {'; '.join(variants)}"), reason
