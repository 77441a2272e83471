"""Real ranks load the same bundles, or none; whatever befalls one of them, the others go on in time."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pytest
import torch._functorch.config

from tests.kit.processes import REPOSITORY, TIMEOUT, Answer, Processes, Step, step
from tests.kit.servers import free_port

PATIENT, HURRIED = 120.0, 30.0
"""Timeouts of warm starts: longer than any takes, and shorter than a store hangs."""
VARIABLES = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "TORCHINDUCTOR_COMPILE_THREADS": "1"}
READY = [step("import_compiler"), step("join")]
"""The ranks wait for one another before they warm, so that one that is slow to start is not taken for a failure."""
SETTING = "_sync_cache_decision_cross_ranks"
WORK = [step("run", model="doubling"), step("add")]


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Starts ranks that share a store, each with a cache folder of its own."""

    folder: Path
    store: Path
    probes: Path
    started: "list[subprocess.Popen[bytes]]" = field(default_factory=list)

    def warm(self, seconds: float) -> Step:
        """Warm; the protocol lets a rank make the store fail for itself."""
        return step("warm", url=f"faulty://{self.store}", timeout=seconds)

    def torchrun(self, *ranks: Sequence[Step], restarts: int = 0) -> list[Mapping[str, Answer]]:
        """Start ranks by torchrun, and give the answers of each by step."""
        torchrun = ["torch.distributed.run", "--standalone", f"--nproc-per-node={len(ranks)}"]
        (popen,) = self._start(ranks, [*torchrun, f"--max-restarts={restarts}", "-m"], [{}])
        assert popen.wait(TIMEOUT) == 0
        return [self.answers(rank) for rank in range(len(ranks))]

    def start(self, *ranks: Sequence[Step]) -> "list[subprocess.Popen[bytes]]":
        """Start ranks as a launcher does that watches none of them; rank 0 opens the port that all are told."""
        job = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(len(ranks))}
        return self._start(ranks, [], [{**job, "RANK": str(rank)} for rank in range(len(ranks))])

    def _start(
        self, ranks: Sequence[Sequence[Step]], launcher: Sequence[str], processes: Sequence[Mapping[str, str]]
    ) -> "list[subprocess.Popen[bytes]]":
        for rank in range(len(ranks)):
            shutil.copytree(self.probes, self.folder / f"inductor-{rank}")
        (self.folder / "steps.json").write_text(json.dumps(ranks))
        command = [sys.executable, "-m", *launcher, "tests.kit.rank", str(self.folder)]
        for own in processes:
            self.started.append(subprocess.Popen(command, cwd=REPOSITORY, env={**os.environ, **VARIABLES, **own}))
        return self.started

    def answers(self, rank: int) -> Mapping[str, Answer]:
        """Read what a rank has left."""
        answers: Mapping[str, Answer] = json.loads((self.folder / f"answers-{rank}.json").read_text())
        return answers


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> Path:
    """Publish one bundle."""
    folder = tmp_path_factory.mktemp("ranks")
    steps = step("run", model="doubling"), step("publish", url=str(folder / "store"))
    _, published = Processes(folder, probes).run(*steps, environment=VARIABLES)
    assert published["status"] == "published"
    return folder / "store"


@pytest.fixture
def job(store: Path, probes: Path, tmp_path: Path) -> Iterator[Job]:
    """Give a job whose ranks read that store; nothing is left of it afterwards."""
    job = Job(folder=tmp_path, store=store, probes=probes)
    yield job
    for popen in job.started:
        popen.terminate()  # torchrun ends its ranks
        popen.wait(TIMEOUT)


@pytest.mark.parametrize(
    "before",
    [pytest.param(READY, marks=pytest.mark.nightly, id="initialised"), pytest.param([], id="not initialised")],
)
def test_ranks_load_the_same(job: Job, before: list[Step]) -> None:
    """They meet in the store of torchrun, whether torch has brought them together or not; then it still can."""
    rest = WORK if before else [WORK[0], step("join"), WORK[1]]
    ranks = job.torchrun(*[[*before, job.warm(PATIENT), *rest]] * 2)
    assert [rank["warm"]["status"] for rank in ranks] == ["loaded"] * 2
    assert ranks[0]["warm"]["bundles"] == ranks[1]["warm"]["bundles"]
    assert [(rank["run"]["fx_miss"], rank["add"]["sum"]) for rank in ranks] == [(0, 1)] * 2
    assert [rank["warm"]["warnings"] for rank in ranks] == [[], []]


def test_ranks_that_begin_early(job: Job) -> None:
    """They agree in the background; each loads the same before it compiles, without another call.

    So does one that turns to the GPU of its own number meanwhile, for the others know nothing of that. A child that a
    rank has forked loads for itself, and says nothing in its name.
    """
    begun = step("prefetch", url=f"faulty://{job.store}", timeout=PATIENT)
    rest = [WORK[0], step("result"), step("join"), WORK[1]]
    forked = [[step("result_in_fork")], []]
    ranks = job.torchrun(*([begun, *forked[number], step("turn", device=number), *rest] for number in range(2)))
    assert ranks[0]["result_in_fork"]["status"] == "loaded"
    assert [(rank["result"]["status"], rank["run"]["fx_miss"], rank["add"]["sum"]) for rank in ranks] == [
        ("loaded", 0, 1)
    ] * 2
    assert [rank["result"]["warnings"] for rank in ranks] == [[], []]


@pytest.mark.nightly
def test_store_that_hangs_for_one_of_eight(job: Job) -> None:
    """No rank loads anything, each says why in its time, and all compile and go on together."""
    hanging = step("meet_fault", request="chunk", fault="hang")
    ranks = job.torchrun(*([*READY, *([hanging] if rank == 5 else []), job.warm(HURRIED), *WORK] for rank in range(8)))
    assert [rank["warm"]["status"] for rank in ranks] == ["unavailable"] * 8
    assert [(rank["run"]["fx_miss"], rank["add"]["sum"]) for rank in ranks] == [(1, 28)] * 8
    reasons = [rank["warm"]["reason"] for rank in ranks]
    assert "while downloading" in reasons.pop(5)
    assert all("of this job load nothing: rank 5 " in reason for reason in reasons), reasons


def test_chunk_that_is_damaged_for_one(job: Job) -> None:
    """The others are told at once what that rank lacks, and load nothing either."""
    damaged = step("meet_fault", request="chunk", fault="flip")
    sound, broken = job.torchrun([*READY, job.warm(PATIENT), *WORK], [*READY, damaged, job.warm(PATIENT), *WORK])
    assert (sound["warm"]["status"], broken["warm"]["status"]) == ("unavailable", "unavailable")
    assert (sound["warm"]["error"], broken["warm"]["error"]) == ("UnavailableError", "IntegrityError")
    assert "rank 1 lacks 1 bundle (bundle" in sound["warm"]["reason"]
    assert "is damaged" in sound["warm"]["reason"]
    assert (sound["run"]["fx_miss"], broken["run"]["fx_miss"]) == (1, 1)


@pytest.mark.nightly
def test_job_that_is_restarted_after_a_rank_was_killed(job: Job) -> None:
    """What the first attempt has left in the store of the job, in the middle of it, does not lead the second astray."""
    dying = step("meet_fault", request="chunk", fault="die")
    # Torch brings ranks together only afterwards: what gloo leaves there may lead the second attempt astray.
    rest = [job.warm(PATIENT), WORK[0], step("join"), WORK[1]]
    ranks = job.torchrun(rest, [dying, *rest], restarts=1)
    assert [rank["warm"]["status"] for rank in ranks] == ["loaded"] * 2
    assert [(rank["run"]["fx_miss"], rank["add"]["sum"]) for rank in ranks] == [(0, 1)] * 2


@pytest.mark.nightly
def test_rank_that_was_killed_and_that_nobody_watches(job: Job) -> None:
    """Those who are left load nothing, and say who is missing."""
    dying = step("meet_fault", request="chunk", fault="die")
    started = job.start(*([*READY, *([dying] if rank == 2 else []), job.warm(HURRIED), WORK[0]] for rank in range(3)))
    assert [popen.wait(TIMEOUT) for popen in started] == [0, 0, -signal.SIGKILL]
    ranks = [job.answers(rank) for rank in range(2)]
    assert [rank["warm"]["status"] for rank in ranks] == ["unavailable"] * 2
    assert all("rank 2 did not finish in time" in rank["warm"]["reason"] for rank in ranks)
    assert [rank["run"]["fx_miss"] for rank in ranks] == [1, 1]


@pytest.mark.nightly
def test_ranks_that_cannot_meet_are_warned(job: Job) -> None:
    """Where no store is kept for the job, the port of rank 0 is left to it, and each loads for itself."""
    started = job.start(*[[job.warm(PATIENT), *WORK[:1], *READY[1:], *WORK[1:]]] * 2)
    assert [popen.wait(TIMEOUT) for popen in started] == [0, 0]
    for rank in map(job.answers, range(2)):
        assert (rank["warm"]["status"], rank["add"]["sum"]) == ("loaded", 1)
        assert "the 2 ranks of this job cannot agree on what they load" in rank["warm"]["warnings"][0]


@pytest.mark.nightly
def test_hit_that_another_rank_missed_is_in_the_receipt(job: Job) -> None:
    """With PyTorch's own setting, a rank that finds a graph alone compiles it with the others, and is told so."""
    if not hasattr(torch._functorch.config, SETTING):
        pytest.skip(f"PyTorch {torch.__version__} does not compare the hits of ranks; 2.15 does")
    alone = [step("run", model="doubling"), step("start_afresh")]
    together = [step("join"), step("run", model="doubling"), step("receipt"), step("add")]
    setting = step("configure", name=f"_functorch.config.{SETTING}", value=True)
    ranks = job.torchrun([setting, *alone, *together], [setting, *together])
    found = [rank["receipt"] for rank in ranks]
    assert [one["ranks_agree"] for one in found] == [True, True]
    assert [one["aot_autograd"]["rank_missed"] for one in found] == [1, 0]
    assert "(1 missed by another rank)" in found[0]["verdict"]
