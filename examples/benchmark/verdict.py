"""The bars that megacache has to clear, and whether it does."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from examples.benchmark.samples import Sample, Series, cases, quotient, total_of
from examples.benchmark.variants import OURS, PEERS

MOST_OF_COPY, AIM_OF_COPY = 1.0, 0.8
LEAST_OF_PLAIN = 4.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """How one of megacache's variants stands on one model; a ratio is None if its peer was not measured."""

    model: str
    variant: str
    of_copy: Series | None
    """Its seconds divided by those of the copied folder."""
    plain_of_it: Series | None
    """The seconds of the plain API divided by its own."""
    best_peer: str
    """The peer with the least median; empty if none was measured."""
    of_best: Series | None

    @property
    def keeps_up_with_copy(self) -> bool | None:
        """Tell whether it takes no longer than the copied folder."""
        return None if self.of_copy is None else self.of_copy.median <= MOST_OF_COPY

    @property
    def reaches_aim(self) -> bool | None:
        """Tell whether it beats the copied folder by as much as is aimed at."""
        return None if self.of_copy is None else self.of_copy.median <= AIM_OF_COPY

    @property
    def outruns_plain(self) -> bool | None:
        """Tell whether the plain API takes several times as long."""
        return None if self.plain_of_it is None else self.plain_of_it.median >= LEAST_OF_PLAIN

    @property
    def leads(self) -> bool | None:
        """Tell whether no peer is ahead."""
        return None if self.of_best is None else self.of_best.median <= 1

    @property
    def bars(self) -> tuple[bool | None, ...]:
        """Give all that it is judged by, the aim apart."""
        return (self.keeps_up_with_copy, self.outruns_plain, self.leads)


def verdicts(samples: Sequence[Sample]) -> Iterator[Verdict]:
    """Judge each of megacache's variants on each model."""
    for model in cases(samples):
        for variant in OURS:
            if (own := total_of(samples, model, variant)) is not None:
                yield _judged(samples, model, variant, own)


def held(judged: Iterable[Verdict]) -> tuple[int, int]:
    """Count the bars that hold, and all that could be judged."""
    bars = [bar for verdict in judged for bar in verdict.bars if bar is not None]
    return sum(bars), len(bars)


def _judged(samples: Sequence[Sample], model: str, variant: str, own: Series) -> Verdict:
    peers = {peer: series for peer in PEERS if (series := total_of(samples, model, peer)) is not None}
    best = min(peers, key=lambda peer: peers[peer].median, default="")
    plain = peers.get("plain")
    return Verdict(
        model=model,
        variant=variant,
        of_copy=quotient(own, peers.get("copy")),
        plain_of_it=None if plain is None else quotient(plain, own),
        best_peer=best,
        of_best=quotient(own, peers.get(best)),
    )
