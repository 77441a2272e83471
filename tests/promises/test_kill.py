"""`kill -9` at any point of a publication, a warm start or a copy leaves what is whole, or nothing that is visible.

Eight workers at a time publish to one store, warm from it into one cache folder, and copy it to another store, and are
killed at random points of their run; then all is verified: no visible bundle is incomplete, nothing that was ever
published is gone, and no file in the cache folder is half there. What a killed worker may leave is a hidden temporary
file, which a later one removes when it is a day old, and chunks that no bundle names.

`MEGACACHE_KILL_SEED` repeats the choices of a run that failed; when exactly a signal arrives cannot be repeated.
"""

import json
import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from megacache._catalog import Inventory, verify
from tests.kit.builders import noise
from tests.kit.kill_worker import Address, Job, open_store
from tests.kit.processes import REPOSITORY, TIMEOUT, Process, Processes, step
from tests.kit.servers import Server

SERVERS = {"s3": "moto_s3", "gs": "gcs_server"}
WORKERS = 8
FEWER = 12
"""Times fewer on servers, where a worker takes longer to connect than to do its work."""
ROUNDS_OF_A_LIFE = 8
"""A store is given up after so many rounds, since to verify it takes longer as it grows."""
KILLED = -9
EVERY_STEP = 20
"""Times a worker of each verb touches the disk, at least."""
TORCH_KILLS = 3


class Fleet:
    """The process that forks workers and kills them."""

    def __init__(self, popen: "subprocess.Popen[str]") -> None:
        self._popen = popen

    def round(self, jobs: Sequence[Job]) -> list[Job]:
        """Run workers at once; no one may fail but by being killed."""
        assert self._popen.stdin is not None
        assert self._popen.stdout is not None
        self._popen.stdin.write(f"{json.dumps(list(jobs))}\n")
        self._popen.stdin.flush()
        answers: list[Job] = json.loads(self._popen.stdout.readline())
        assert {answer["status"] for answer in answers} <= {0, KILLED}
        return answers


@pytest.fixture(scope="module")
def fleet() -> Iterator[Fleet]:
    """Start the process that forks."""
    popen = subprocess.Popen(
        [sys.executable, "-m", "tests.kit.kill_worker"],
        cwd=REPOSITORY,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield Fleet(popen)
        popen.communicate(timeout=TIMEOUT)
    finally:
        popen.kill()


@dataclass(slots=True, kw_only=True)
class Life:
    """A store from its first bundle on, the store it is copied to, and the folders that warm starts fill."""

    home: Path
    url: str = ""
    """Where the stores are; empty if that is at home."""
    storage_options: dict[str, Any] = field(default_factory=dict)
    seen: dict[str, set[str]] = field(default_factory=lambda: {"store": set(), "target": set()})
    """Bundles that were visible once."""
    left: int = 0
    """Temporary files that killed workers have left, as of the last check."""

    def address(self, name: str) -> Address:
        """Say where a store is."""
        return {"url": f"{self.url or self.home}/{name}", "storage_options": self.storage_options}

    def job(self, verb: str, **options: Any) -> Job:
        """Describe a worker."""
        return {"verb": verb, "store": self.address("store"), "options": options}

    def jobs(self, choose: random.Random, number: int) -> list[Job]:
        """Choose what the workers of a round do: several of each verb, and more than one that compiled the same."""
        chosen = [
            *(self.job("publish", seed=10 * number + choose.randrange(3), worker=n) for n in range(4)),
            *(self.job("warm", folder=str(self.home / f"cache-{number}")) for _ in range(2)),
            *(self.job("copy", target=self.address("target")) for _ in range(2)),
        ]
        choose.shuffle(chosen)
        return chosen

    def check(self, told: Sequence[str]) -> None:
        """Verify both stores, given the bundles that workers told they had published, and the cache folders."""
        self.left = 0
        for name in self.seen:
            visible = self._verify(name)
            assert self.seen[name] <= visible, "a bundle is gone"
            self.seen[name] = visible
        assert {bundle for bundle in told if bundle} <= self.seen["store"], "a bundle was told and is not there"
        assert self.seen["target"] <= self.seen["store"]
        for path in self.home.glob("cache-*/*/*"):
            self._check_file(path)

    def _verify(self, name: str) -> set[str]:
        store = open_store(self.address(name))
        inventory = Inventory.of(store)
        for stranger in inventory.strangers:
            self._check_leftover(stranger.rpartition("/")[2])
        verdicts = [one for holding in inventory.holdings for one in verify(store, holding, lambda _: None).verdicts]
        assert [fault for verdict in verdicts for fault in verdict.faults] == []
        return {verdict.bundle for verdict in verdicts}

    def _check_file(self, path: Path) -> None:
        if path.name.startswith("."):
            self._check_leftover(path.name)
            return
        seed, _, number = path.stem.removeprefix("lib").partition("x")
        assert path.read_bytes() == noise(15_000, int(seed) * 1000 + int(number)), f"{path} is torn"

    def _check_leftover(self, name: str) -> None:
        assert name.startswith("."), name
        assert name.endswith(".tmp"), name
        self.left += 1


def wait_for(condition: Callable[[], bool], process: Process) -> None:
    """Wait until something has happened, or a process has ended."""
    deadline = time.monotonic() + TIMEOUT
    while not condition() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.001)


def finish(life: Life, fleet: Fleet) -> None:
    """Check that workers which nobody kills find all in order: they publish, load and copy everything."""
    folder = life.home / "cache-last"
    fleet.round([life.job("publish", seed=9, worker=0)])
    warmed, copied = fleet.round(
        [life.job("warm", folder=str(folder)), life.job("copy", target=life.address("target"))]
    )
    assert (warmed["told"], copied["told"]) == ("loaded", "copied")
    life.check([])
    assert life.seen["target"] == life.seen["store"]
    assert [path for path in folder.rglob("lib*.so") if path.is_file()]


@pytest.fixture(params=["disk", *SERVERS])
def birth(request: pytest.FixtureRequest, tmp_path: Path, name: str) -> Callable[[int], Life]:
    """Give what makes stores of one kind, each empty."""
    if request.param == "disk":
        return lambda number: Life(home=tmp_path / f"life-{number}")
    server: Server = request.getfixturevalue(SERVERS[request.param])
    return lambda number: Life(
        home=tmp_path / f"life-{number}",
        url=f"{server.url}/{name}/{number}",
        storage_options=dict(server.storage_options),
    )


@pytest.mark.parametrize("kills", [100, pytest.param(600, marks=pytest.mark.nightly)])
def test_killed_at_random(birth: Callable[[int], Life], fleet: Fleet, kills: int) -> None:
    """A hundred workers and more are killed at random points, eight at once, and after each round all is sound."""
    seed = os.environ.get("MEGACACHE_KILL_SEED") or str(random.SystemRandom().randrange(10**6))
    print(f"MEGACACHE_KILL_SEED={seed}")  # noqa: T201 - shown if the test fails
    choose, killed, left, lives = random.Random(seed), 0, 0, 0
    wanted = kills if birth(0).url == "" else kills // FEWER
    while killed < wanted:
        assert lives <= wanted / WORKERS, "workers end before they are killed"
        life, lives = birth(lives), lives + 1
        killed += live(life, fleet, choose)
        left += life.left
    print(f"{killed} killed, {left} temporary files left")  # noqa: T201


def live(life: Life, fleet: Fleet, choose: random.Random) -> int:
    """Run the rounds of a life, and count the workers that were killed."""
    killed = 0
    usual = max(one["seconds"] for one in fleet.round(life.jobs(choose, 0)))
    for number in range(1, ROUNDS_OF_A_LIFE):
        jobs = [{**job, "seconds": choose.uniform(0, usual)} for job in life.jobs(choose, number)]
        answers = fleet.round(jobs)
        killed += sum(answer["status"] == KILLED for answer in answers)
        published = [answer for job, answer in zip(jobs, answers, strict=True) if job["verb"] == "publish"]
        life.check([answer["told"] or "" for answer in published])
    finish(life, fleet)
    return killed


@pytest.mark.parametrize(
    "verb", ["publish", *(pytest.param(verb, marks=pytest.mark.nightly) for verb in ("warm", "copy"))]
)
def test_killed_at_each_step(verb: str, fleet: Fleet, tmp_path: Path) -> None:
    """A worker is killed before it touches the disk for the first, second, third … time, until one comes to its end."""
    first, answers = 1, list[Job]()
    while not any(answer["status"] == 0 for answer in answers):
        lives = [Life(home=tmp_path / f"life-{first + n}") for n in range(WORKERS)]
        fleet.round([life.job("publish", seed=1, worker=0) for life in lives])
        jobs = [next(job for job in life.jobs(random.Random(1), 1) if job["verb"] == verb) for life in lives]
        answers = fleet.round([{**job, "step": first + n} for n, job in enumerate(jobs)])
        for life in lives:
            life.check([])
            finish(life, fleet)
        first += WORKERS
    assert first > EVERY_STEP


def test_real_warm_start_is_killed(processes: Processes, tmp_path: Path) -> None:
    """PyTorch's own loader is killed as soon as it writes: later processes with that folder run, and run right."""
    url, folder, choose = str(tmp_path / "store"), processes.new_folder(), random.Random(1)
    ran, published = processes.run(step("run", model="doubling"), step("publish", url=url))
    assert published["status"] == "published"
    for _ in range(TORCH_KILLS):
        shutil.rmtree(folder / "fxgraph", ignore_errors=True)
        child = processes.start(step("warm", url=url), folder=folder)
        wait_for((folder / "fxgraph").exists, child.process)
        time.sleep(choose.uniform(0, 0.01))
        child.process.kill()
        child.exit_status()
    (alone,) = processes.run(step("run", model="doubling"), folder=folder)
    # Two that end in a row while they load make a bundle suspect, which would leave it out here.
    shutil.rmtree(folder / "megacache")
    warmed, again = processes.run(step("warm", url=url), step("run", model="doubling"), folder=folder)
    assert alone["digest"] == again["digest"] == ran["digest"]
    assert (warmed["status"], again["fx_miss"]) == ("loaded", 0)
