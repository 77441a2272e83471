"""What was measured, and the figures that are made of it."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import NamedTuple, TypeVar

_log = logging.getLogger("benchmark")
_Variant = TypeVar("_Variant")


class Step(NamedTuple):
    """One thing to measure, once."""

    section: str
    case: str
    variant: str
    round: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """A step that gave no sample."""

    step: Step
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """What one process told, or what was counted around it."""

    section: str
    case: str
    variant: str
    round: int
    values: Mapping[str, float]
    """Seconds, bytes or counts, by name."""

    @property
    def step(self) -> Step:
        """Name the step that it is of."""
        return Step(self.section, self.case, self.variant, self.round)


Figure = Callable[[Mapping[str, float]], float]
"""One number from the values of one sample."""


@dataclass(frozen=True, slots=True)
class Series:
    """One number for each round."""

    by_round: Mapping[int, float]

    def __truediv__(self, other: "Series") -> "Series":
        return self._with(other, lambda one, two: one / two)

    def __sub__(self, other: "Series") -> "Series":
        return self._with(other, lambda one, two: one - two)

    def __add__(self, other: "Series") -> "Series":
        return self._with(other, lambda one, two: one + two)

    @property
    def median(self) -> float:
        """Give the middle of all rounds."""
        return median(self.by_round.values())

    @property
    def span(self) -> tuple[float, float]:
        """Give the least and the most of all rounds."""
        return min(self.by_round.values()), max(self.by_round.values())

    def _with(self, other: "Series", operation: Callable[[float, float], float]) -> "Series":
        # Round by round: what slowed the machine down for a while slowed both. A round may lack one of them.
        pairs = {turn: (value, other.by_round.get(turn)) for turn, value in self.by_round.items()}
        return Series({turn: operation(one, two) for turn, (one, two) in pairs.items() if two is not None})


def series(samples: Iterable[Sample], case: str, variant: str, figure: Figure) -> Series:
    """Collect one figure of one variant over all rounds."""
    return Series({s.round: figure(s.values) for s in samples if (s.case, s.variant) == (case, variant)})


def value(name: str) -> Figure:
    """Take one value as it is."""
    return lambda values: values[name]


def total_of(samples: Iterable[Sample], case: str, variant: str) -> Series | None:
    """Collect the time in all; None if it was not measured."""
    found = series(samples, case, variant, value("total"))
    return found if found.by_round else None


def quotient(one: Series, other: Series | None) -> Series | None:
    """Divide round by round; None if no round has both."""
    divided = None if other is None else one / other
    return divided if divided and divided.by_round else None


def median_sample(samples: Iterable[Sample], case: str, variant: str) -> Sample:
    """Find the run whose time in all is the median; the faster one of two in the middle."""
    runs = [sample for sample in samples if (sample.case, sample.variant) == (case, variant)]
    return sorted(runs, key=lambda sample: sample.values["total"])[(len(runs) - 1) // 2]


def cases(samples: Iterable[Sample]) -> tuple[str, ...]:
    """Name the cases in the order in which they were measured."""
    return tuple(dict.fromkeys(sample.case for sample in samples))


def rotated(variants: Sequence[_Variant], turn: int) -> tuple[_Variant, ...]:
    """Let each variant be the first in its turn, so that none always follows the same one."""
    start = turn % len(variants)
    return (*variants[start:], *variants[:start])


def noted(sample: Sample) -> Sample:
    """Tell of a sample as soon as it is there."""
    shown = " ".join(f"{name}={value:.4g}" for name, value in sample.values.items())
    _log.info("%s: %s: %s #%d: %s", sample.section, sample.case, sample.variant, sample.round, shown)
    return sample
