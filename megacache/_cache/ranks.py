"""Let the ranks of a job load the same bundles, or none.

A rank that loads and a rank that compiles are minutes apart, and their collectives time out, or meet the wrong ones.
So one rank lists the store for all that are alike; each fetches and verifies what it is to load, and says so; only what
all of them have is loaded. Whoever fails, or waits in vain, decides for all that nothing is loaded. The decision is one
text in the job's store, which is written once: no rank can take it for another than its neighbour does.
"""

import json
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from typing import Self

from megacache._compiler import Board, Job
from megacache._runtime import Deadline, counted
from megacache.errors import MegacacheError, UnavailableError

HELD_BYTES = 2 << 30
"""Bytes of content that a rank holds until all have theirs, at most."""
RISK = "a rank that loads while another compiles can make the collectives of both time out"
# What is left of the time is for telling the others.
_SHARE = 0.9
_PAUSE, _LONGEST_PAUSE = 0.02, 0.5
_MAX_REASON, _MAX_NAMED = 300, 8
_DECISION = "decision"
_HINT = "call warm() equally often on every rank, and read the log of each rank that is named here"


@dataclass(frozen=True, slots=True, kw_only=True)
class Vote:
    """What one rank could load."""

    rank: int
    group: str
    """The environment: ranks of the same one load the same."""
    held: frozenset[str]
    """Ids of the bundles that it has fetched and verified."""
    lacks: str = ""
    """Why it has no others."""

    def to_text(self) -> str:
        """Write it down."""
        return json.dumps({**asdict(self), "held": sorted(self.held)})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `to_text` wrote."""
        read = json.loads(text)
        return cls(**{**read, "held": frozenset(read["held"])})


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """What all ranks load."""

    bundles: Mapping[str, frozenset[str]] = field(default_factory=dict)
    """Ids of the bundles, by environment."""
    why: str = ""
    """What kept them from loading more; empty if nothing did."""

    def to_text(self) -> str:
        """Write it down."""
        return json.dumps({"bundles": {group: sorted(ids) for group, ids in self.bundles.items()}, "why": self.why})

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read what `to_text` wrote."""
        read = json.loads(text)
        return cls(bundles={group: frozenset(ids) for group, ids in read["bundles"].items()}, why=read["why"])


def decide(votes: Collection[Vote]) -> Decision:
    """Choose what every rank of an environment has; nothing at all if those of one environment would load nothing."""
    held: dict[str, list[frozenset[str]]] = {}
    for vote in votes:
        held.setdefault(vote.group, []).append(vote.held)
    common = {group: frozenset[str].intersection(*sets) for group, sets in held.items()}
    most = {group: frozenset[str]().union(*sets) for group, sets in held.items()}
    if not any(most.values()):
        return Decision()
    lacking = [vote for vote in votes if not vote.held or vote.held != most[vote.group]]
    why = "; ".join(f"rank {vote.rank} {_lacking(vote, most[vote.group])}" for vote in lacking[:_MAX_NAMED])
    return Decision(bundles=common if all(common.values()) else {}, why=why)


def _lacking(vote: Vote, most: frozenset[str]) -> str:
    if not most:
        return f"has nothing: nothing is published for {vote.group}"
    return f"lacks {counted(len(most - vote.held), 'bundle')} ({vote.lacks})"


@contextmanager
def ranks_of(job: Job | None, deadline: Deadline) -> Iterator["Ranks | None"]:
    """Take part in what the ranks of a job decide, to the end of a block; a fault in it decides for all.

    None if this process is alone, or has no way to reach the others.
    """
    if job is None or job.address is None or job.rank is None:
        yield None
        return
    ranks = Ranks(Board.open(job.address, deadline), rank=job.rank, size=job.size, deadline=deadline)
    try:
        yield ranks
    except BaseException as error:
        ranks.give_up(str(error) if isinstance(error, MegacacheError) else type(error).__name__)
        raise


def strangers(job: Job | None) -> tuple[str, ...]:
    """Warn if there are other ranks and no way to reach them."""
    if job is None or (job.address is not None and job.rank is not None):
        return ()
    remedy = "start them with torchrun, or warm after torch.distributed.init_process_group()"
    return (f"the {job.size} ranks of this job cannot agree on what they load, and {RISK}: {remedy}",)


class Ranks:
    """The ranks of one job, in one warm start."""

    def __init__(self, board: Board, *, rank: int, size: int, deadline: Deadline) -> None:
        """Take part as one of them, who must be done by a deadline."""
        self._board = board
        self._rank = rank
        self._size = size
        self.deadline = deadline.sooner(deadline.remaining() * _SHARE)
        """When this rank must have what it is to load."""
        self._round = ""
        self._decision: Decision | None = None

    def meet(self) -> None:
        """Find out under which names the ranks talk this time.

        A store outlives the ranks that torchrun restarts, so that rank 0 chooses new names, and tells them to each
        process that it hears of.
        """
        if self._rank:
            me = uuid.uuid4().hex
            self._board.put(f"join/{self._rank}", me)
            found = self._first(f"round/{me}")
            if not found:
                msg = f"rank 0 of this job did not answer, so this rank loads nothing; {RISK}"
                raise UnavailableError(msg, hint=_HINT)
            self._round = found[1]
            self._board.put(self._name(f"met/{self._rank}"), "")
        else:
            self._round = uuid.uuid4().hex
            self._welcome()

    def _welcome(self) -> None:
        missing, welcomed = set(range(1, self._size)), dict[int, str]()
        for _ in self._until_the_end():
            for rank in sorted(missing):
                one = self._board.find(f"join/{rank}")
                if one is not None and welcomed.get(rank) != one:
                    self._board.put(f"round/{one}", self._round)
                    welcomed[rank] = one
                elif one is not None and self._board.find(self._name(f"met/{rank}")) is not None:
                    missing.discard(rank)
            if not missing:
                return
        msg = f"{_ranks(missing)} of this job did not answer, so no rank loads anything; {RISK}"
        raise UnavailableError(msg, hint=_HINT)

    def listing(self, group: str, names: Callable[[], Mapping[str, int]]) -> Mapping[str, int]:
        """Give the names and sizes that one rank of an environment has listed for all of them."""
        name = self._name(f"{group}/listing")
        lister = self._board.settle(self._name(f"{group}/lister"), str(self._rank))
        if lister == str(self._rank):
            listed = names()
            self._board.put(name, json.dumps(dict(listed)))
            return listed
        # Who cannot list decides for all.
        found = self._first(name, self._name(_DECISION))
        if found and found[0] == name:
            return {str(key): int(size) for key, size in json.loads(found[1]).items()}
        self._decision = Decision.parse(found[1]) if found else None
        raise self.fault() or self.deadline.missed(f"waiting for rank {lister}, which lists the store for all")

    def agree(self, group: str, held: Collection[str], lacks: str) -> frozenset[str]:
        """Tell what this rank has fetched and verified; give the ids of what it is to load."""
        vote = Vote(rank=self._rank, group=group, held=frozenset(held), lacks=lacks[:_MAX_REASON])
        self._board.put(self._name(f"vote/{self._rank}"), vote.to_text())
        # The last one to vote decides. A process that a rank has started may have voted as that rank.
        if self._board.count(self._name("votes")) >= self._size and None not in (votes := list(self._votes())):
            self._settle(decide([one for one in votes if one is not None]))
        if found := self._first(self._name(_DECISION)):
            self._decision = Decision.parse(found[1])
        else:
            silent = [rank for rank, one in enumerate(self._votes()) if one is None]
            self._settle(Decision(why=f"{_ranks(silent)} did not finish in time"))
        return self.decision.bundles.get(group, frozenset())

    def give_up(self, why: str) -> None:
        """Decide for all that nothing is loaded, unless that has been decided."""
        if self._round and self._decision is None:
            with suppress(MegacacheError):  # those who cannot be told decide the same when their time is over
                self._settle(Decision(why=f"rank {self._rank} gave up: {why[:_MAX_REASON]}"))

    @property
    def decision(self) -> Decision:
        """What was decided; nothing as long as nothing was."""
        return self._decision or Decision()

    def fault(self) -> MegacacheError | None:
        """Say why no rank loads anything; None if they do, or if none has anything to load."""
        if self.decision.bundles or not self.decision.why:
            return None
        msg = f"the {self._size} ranks of this job load nothing: {self.decision.why}; {RISK}"
        return UnavailableError(msg, hint=_HINT)

    def _settle(self, decision: Decision) -> None:
        self._decision = Decision.parse(self._board.settle(self._name(_DECISION), decision.to_text()))

    def _first(self, *names: str) -> tuple[str, str] | None:
        """Wait for a text under one of some names; give name and text, or None if there is none in time."""
        for _ in self._until_the_end():
            for name in names:
                if (text := self._board.find(name)) is not None:
                    return name, text
        return None

    def _until_the_end(self) -> Iterator[None]:
        """Try at growing intervals, and once more when the time is over."""
        pause = _PAUSE
        while left := self.deadline.remaining():
            yield
            time.sleep(min(pause, left))
            pause = min(pause * 1.5, _LONGEST_PAUSE)
        yield

    def _votes(self) -> Iterator[Vote | None]:
        for rank in range(self._size):
            text = self._board.find(self._name(f"vote/{rank}"))
            yield None if text is None else Vote.parse(text)

    def _name(self, name: str) -> str:
        return f"{self._round}/{name}"


def _ranks(numbers: Iterable[int]) -> str:
    """Name some ranks, such as `rank 3` or `rank 3, 5`; of many, the first ones."""
    first = sorted(numbers)
    return f"rank {', '.join(map(str, first[:_MAX_NAMED]))}{' and others' if first[_MAX_NAMED:] else ''}"
