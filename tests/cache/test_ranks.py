"""Ranks agree on what all of them have, by one listing, in a store that may hold the words of an earlier attempt."""

import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from torch.distributed import TCPStore  # type: ignore[attr-defined]

from megacache import WarmResult
from megacache._cache.cache_folder import CacheFolder
from megacache._cache.crash_guard import CrashGuard
from megacache._cache.ranks import Decision, Ranks, Vote, decide, ranks_of, strangers
from megacache._cache.session import Session
from megacache._cache.warm import Warming
from megacache._catalog import Places
from megacache._compiler import Board, Job
from megacache._runtime import Deadline
from megacache.errors import MegacacheError, UnavailableError
from tests.kit.builders import artifacts, bundle, call_on, environment, open_store, prefix_of, upload

PATIENT, HURRIED = 60.0, 2.0
X, Y = "x" * 32, "y" * 32
HERE, ELSEWHERE = "cpu-x86-64-avx512/0123", "cpu-x86-64-avx2/4567"


@pytest.fixture
def address() -> Iterator[tuple[str, int]]:
    """Keep a store open for a job."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    yield "127.0.0.1", store.port
    del store


Part = Callable[[Ranks], object]


def play(address: tuple[str, int], *parts: Part | None, seconds: float = PATIENT) -> list[object]:
    """Let each rank play its part, if it has one, and give what it returns, or its fault."""

    def rank(number: int) -> object:
        part = parts[number]
        if part is None:
            return None
        job = Job(rank=number, size=len(parts), address=address)
        try:
            with ranks_of(job, Deadline.after(seconds)) as ranks:
                assert ranks is not None
                ranks.meet()
                return part(ranks)
        except BaseException as error:  # noqa: BLE001 - it is looked at
            return error

    with ThreadPoolExecutor(len(parts)) as pool:
        return list(pool.map(rank, range(len(parts))))


def has(*bundles: str, group: str = HERE, lacks: str = "") -> Part:
    """Have some bundles."""
    return lambda ranks: ranks.agree(group, bundles, lacks)


def fail(error: BaseException) -> Part:
    """Fail before the vote."""

    def part(_: Ranks) -> object:
        raise error

    return part


def test_all_load_what_all_have(address: tuple[str, int]) -> None:
    """What one of them lacks, none loads."""
    assert play(address, has(X, Y), has(Y), has(Y, X)) == [{Y}] * 3


def test_one_that_has_nothing_decides_for_all(address: tuple[str, int]) -> None:
    """They are told which one it is, and why."""
    why: list[MegacacheError | None] = []

    def tell(ranks: Ranks) -> object:
        found = ranks.agree(HERE, [X], "")
        why.append(ranks.fault())
        return found

    assert play(address, tell, has(lacks="its chunk is damaged")) == [set()] * 2
    assert "the 2 ranks of this job load nothing: rank 1 lacks 1 bundle (its chunk is damaged)" in str(why[0])


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (UnavailableError("its disk is full"), "its disk is full"),
        (SystemExit(1), "SystemExit"),
        (MemoryError(), "MemoryError"),
    ],
)
def test_one_that_fails_is_not_waited_for(error: BaseException, told: str, address: tuple[str, int]) -> None:
    """It decides for all before it goes."""
    why: list[str] = []

    def tell(ranks: Ranks) -> object:
        found = ranks.agree(HERE, [X], "")
        why.append(ranks.decision.why)
        return found

    assert play(address, tell, fail(error)) == [set(), error]
    assert why == [f"rank 1 gave up: {told}"]


@pytest.mark.parametrize("absent", [0, 2])
def test_rank_that_never_warms(absent: int, address: tuple[str, int]) -> None:
    """It may be without megacache: the others load nothing when their time is over, and name it."""

    def tell(ranks: Ranks) -> object:
        ranks.agree(HERE, [X], "")
        return ranks.decision.why

    told = play(address, *(None if rank == absent else tell for rank in range(3)), seconds=HURRIED)
    assert told.pop(absent) is None
    # Whose time is over first decides; one that has met rank 0 does not know that rank 0 waits for another.
    assert all(
        re.search(rf"rank (\d, )?{absent} (of this job did not answer|did not finish)", str(why)) for why in told
    )


def test_ranks_of_other_environments(address: tuple[str, int]) -> None:
    """Each loads what those that are like it have, as long as there is something for all of them."""
    assert play(address, has(X), has(Y, group=ELSEWHERE), has(X)) == [{X}, {Y}, {X}]
    assert play(address, has(X), has(group=ELSEWHERE), has(X)) == [set()] * 3


def test_one_rank_of_an_environment_lists(address: tuple[str, int]) -> None:
    """The others are given its listing."""
    listed: list[str] = []

    def listing(group: str) -> Part:
        def names() -> dict[str, int]:
            listed.append(group)
            return {f"{group}.msgpack": 7}

        return lambda ranks: ranks.listing(group, names)

    found = play(address, *(listing(HERE) for _ in range(3)), listing(ELSEWHERE))
    assert found == [{f"{HERE}.msgpack": 7}] * 3 + [{f"{ELSEWHERE}.msgpack": 7}]
    assert sorted(listed) == sorted([HERE, ELSEWHERE])


def test_one_that_cannot_list_decides_for_all(address: tuple[str, int]) -> None:
    """Nobody waits for a listing that will not come."""

    def listing(ranks: Ranks) -> object:
        def names() -> dict[str, int]:
            raise UnavailableError("the store is down")

        return ranks.listing(HERE, names)

    told = sorted(map(str, play(address, listing, listing)), key=len)
    assert told[0] == "the store is down"
    assert "of this job load nothing: rank" in told[1]
    assert "gave up: the store is down" in told[1]


def test_decision_is_the_same_for_all_whoever_is_late(address: tuple[str, int]) -> None:
    """The last vote and the end of a rank's time may come together: what is written first counts for both."""
    for pause in (0.0, 0.01, 0.02, 0.05):
        late = threading.Event()

        def hurried(ranks: Ranks, late: threading.Event = late) -> object:
            ranks.deadline = Deadline.after(0.03)
            late.set()
            return ranks.agree(HERE, [X], "")

        def other(ranks: Ranks, late: threading.Event = late, pause: float = pause) -> object:
            late.wait(PATIENT)
            threading.Event().wait(pause)
            return ranks.agree(HERE, [X], "")

        first, second = play(address, hurried, other)
        assert first == second


def test_what_an_earlier_attempt_has_left_is_not_taken_up(address: tuple[str, int]) -> None:
    """A store that torchrun keeps holds names and decisions of ranks that were stopped in the middle."""
    play(address, has(X), fail(MemoryError()))
    assert play(address, has(X), has(X)) == [{X}] * 2
    assert play(address, has(X, Y), has(Y)) == [{Y}] * 2


def test_process_that_a_rank_has_started_leaves_the_job_its_decision(address: tuple[str, int]) -> None:
    """It has the variables of its rank, and may vote as well: a vote counts once, and all ranks are waited for."""

    def twice(ranks: Ranks) -> object:
        ranks._board.count(ranks._name("votes"))
        return ranks.agree(HERE, [X], "")

    assert play(address, twice, has(X), has(X, Y)) == [{X}] * 3


@pytest.mark.usefixtures("compiler")
def test_vote_for_more_than_a_rank_has(address: tuple[str, int], tmp_path: Path) -> None:
    """A rank in whose name another process has voted loads what it has itself, and says what the others load."""
    store, one, group = open_store(), bundle(artifacts(1)), prefix_of(environment()).path
    upload(store, one)

    def load(ranks: Ranks) -> object:
        verb = call_on(store)
        folder = CacheFolder(verb, CrashGuard(tmp_path))
        folder.begin(files=True)
        warming = Warming(verb, Places.only(store), environment(), Session(), folder, ranks=ranks)
        warming.fetch()
        return warming.load(store.deadline)

    def vote_for_both(ranks: Ranks) -> object:
        both = [one.manifest.bundle, X]
        name = ranks._name("vote/0")
        assert ranks._first(name)
        ranks._board.put(name, Vote(rank=0, group=group, held=frozenset(both)).to_text())
        return ranks.agree(group, both, "")

    result, agreed = play(address, load, vote_for_both)
    assert isinstance(result, WarmResult)
    assert (result.status, result.bundles, agreed) == ("loaded", (one.manifest.bundle,), {one.manifest.bundle, X})
    assert f"the other ranks of this job load {X}" in str(result.warnings)


def test_store_of_the_job_that_cannot_be_reached() -> None:
    """The rank loads nothing, for the others would wait for it in vain, and load nothing."""
    job = Job(rank=1, size=2, address=("127.0.0.1", 1))
    with (
        pytest.raises(MegacacheError, match="connecting to the store of this job"),
        ranks_of(job, Deadline.after(HURRIED)),
    ):
        pass


@pytest.mark.parametrize(
    ("job", "warned"),
    [
        (None, False),
        (Job(rank=0, size=2, address=("127.0.0.1", 1)), False),
        (Job(rank=0, size=2, address=None), True),
        (Job(rank=None, size=2, address=("127.0.0.1", 1)), True),
    ],
)
def test_ranks_without_a_place_to_meet(job: Job | None, warned: bool) -> None:
    """They are warned of the risk, and told what to do; a process that is alone is not."""
    told = strangers(job)
    assert bool(told) is warned
    if warned:
        assert "can make the collectives of both time out: start them with torchrun" in told[0]
        with ranks_of(job, Deadline.after(HURRIED)) as ranks:
            assert ranks is None


def vote(rank: int, *held: str, group: str = HERE, lacks: str = "") -> Vote:
    """Make a vote."""
    return Vote(rank=rank, group=group, held=frozenset(held), lacks=lacks)


def test_decision_names_who_lacks_what() -> None:
    """Of many ranks the first ones are named, and where nobody has anything there is nothing to tell."""
    found = decide([vote(0, X, Y), vote(1, X, lacks="y is too large")])
    assert found == Decision(bundles={HERE: frozenset({X})}, why="rank 1 lacks 1 bundle (y is too large)")
    assert decide([vote(0), vote(1, group=ELSEWHERE)]) == Decision()
    nothing = decide([vote(0, X), vote(1, group=ELSEWHERE)])
    assert nothing == Decision(why=f"rank 1 has nothing: nothing is published for {ELSEWHERE}")
    many = decide([vote(0, X), *(vote(rank, lacks="-") for rank in range(1, 100))])
    assert many.why.count("rank") == 8


def test_decision_is_read_as_it_was_written() -> None:
    """Votes, too."""
    decision, ballot = Decision(bundles={HERE: frozenset({X, Y})}, why="-"), vote(3, X, Y, lacks="-")
    assert (Decision.parse(decision.to_text()), Vote.parse(ballot.to_text())) == (decision, ballot)


def test_board_that_hangs_is_left(address: tuple[str, int]) -> None:
    """What takes longer than the deadline is not waited for."""
    board = Board.open(address, Deadline.after(HURRIED))
    assert board.find("never") is None
    slow = Board(None, Deadline.after(0.1))
    with pytest.raises(MegacacheError, match="talking to the other ranks"):
        slow._ask(lambda: threading.Event().wait(HURRIED))
