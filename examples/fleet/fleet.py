"""Run a scenario, and find out what came of it."""

import json
import random
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from sys import executable
from typing import Any
from urllib.request import urlopen

from click.testing import CliRunner

from examples.fleet.crew import Account, Fate, run
from examples.fleet.recording import Compilation, read, record
from examples.fleet.scenarios import KINDS, RANKS, Place, Scenario
from examples.fleet.server import CONTROL
from examples.fleet.traffic import Log, Request
from examples.fleet.worker import Job
from megacache._cli.app import app
from tests.kit.processes import REPOSITORY
from tests.kit.servers import HOST, accepts, free_port, running, send, wait_until

_BUCKET = "fleet"
_LOG, _RECORDING = "requests.jsonl", "recording.pickle"
_START_SECONDS = 60.0
_CHECKERS = 1_000_000
"""Numbers from here on are those of workers that look at what is left in the end."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a fleet is run here."""

    workers: int
    at_once: int
    window: float
    """Seconds within which all workers are to start; it takes longer if too many are at work."""
    speed: float
    """How many times faster than real compilations those of the workers are."""
    seconds: float
    """After which a scenario is given up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    """What came of a scenario."""

    scenario: Scenario
    accounts: Sequence[Account]
    places: Mapping[int, Place]
    """By the number of the worker."""
    requests: Sequence[Request]
    checks: Mapping[Place, Mapping[str, Any]]
    """The account of a worker that starts in each place when all is over, with a node of its own."""
    checked: Sequence[Request]
    stored: int
    """Bytes in the store when the last worker has ended."""
    compacted: int
    """Bytes after compaction and removal of what nobody reads."""
    unsound: Sequence[str]
    """What `megacache verify` says of damage."""
    killed: frozenset[int]


class Fleet:
    """A server, and the means to send workers to it."""

    def __init__(self, folder: Path, models: Mapping[str, Sequence[str]], endpoint: str) -> None:
        self._folder = folder
        self._models = models
        self._endpoint = endpoint
        self._log = Log(folder / _LOG)
        self._options = folder / "options.json"
        self._options.write_text(json.dumps({"key": "fleet", "secret": "fleet-loopback", "endpoint_url": endpoint}))

    @property
    def recorded(self) -> Sequence[Compilation]:
        """What was compiled for real."""
        return read(self._folder / _RECORDING)

    def run(self, scenario: Scenario, terms: Terms, name: str = "") -> Outcome:
        """Run a scenario in a part of the store that is empty."""
        name = name or scenario.name
        dice = random.Random(name)
        places = {number: scenario.place(number, terms.workers, dice) for number in range(terms.workers)}
        self._log.take()
        self._throttle(scenario.throttled)
        jobs = [self._job(name, scenario, number, place, terms) for number, place in places.items()]
        fates = [self._fate(scenario, job, terms, dice) for job in jobs]
        accounts = self._crew(fates, terms)
        self._throttle(0.0)
        requests = self._log.take()
        unsound, stored = self._state(name, scenario)
        for version in scenario.versions:
            self._command("compact", name, version, "--yes")
            self._command("gc", name, version, "--yes", "--grace", "0")
        later, compacted = self._state(name, scenario)
        checks = {_CHECKERS + number: place for number, place in enumerate(scenario.places)}
        jobs = [self._job(name, scenario, number, place, terms) for number, place in checks.items()]
        told = {one.number: one.told for one in self._crew([Fate(job=job, after=0.0) for job in jobs], terms)}
        outcome = Outcome(
            scenario=scenario,
            accounts=accounts,
            places=places,
            requests=requests,
            checks={place: told[number] for number, place in checks.items()},
            checked=self._log.take(),
            stored=stored,
            compacted=compacted,
            unsound=[*unsound, *later],
            killed=frozenset(one.number for one in accounts if one.status < 0),
        )
        shutil.rmtree(self._folder / "nodes", ignore_errors=True)
        return outcome

    def _fate(self, scenario: Scenario, job: Job, terms: Terms, dice: random.Random) -> Fate:
        """Say when a worker starts, and whether it is killed: the first one in any case, while it compiles."""
        killed_after = None
        if job.number and dice.random() < scenario.killed:
            life = sum(one.seconds for one in self.recorded if one.model in job.models) / terms.speed
            killed_after = dice.uniform(0.1, 2 * life)
        return Fate(
            job=job,
            after=terms.window * job.number / terms.workers,
            killed_after=killed_after,
            killed_at_work=bool(scenario.killed) and not job.number,
        )

    def _job(self, name: str, scenario: Scenario, number: int, place: Place, terms: Terms) -> Job:
        node = number // RANKS if number < _CHECKERS else number
        return Job(
            scenario=name,
            number=number,
            node=node,
            url=self._url(name, place.version),
            endpoint=self._endpoint,
            folder=str(self._folder / "workers" / f"{name}-{number}"),
            node_folder=str(self._folder / "nodes" / f"{name}-{node}"),
            models=self._served(name, scenario, number, place),
            facts=KINDS[place.kind],
            wait=scenario.wait if number < _CHECKERS else 0.0,
            speed=terms.speed,
        )

    def _served(self, name: str, scenario: Scenario, number: int, place: Place) -> Sequence[str]:
        """Choose models; who looks at what is left wants all."""
        models = self._models[place.version]
        if not scenario.parts or number >= _CHECKERS:
            return models
        dice = random.Random(f"{name}-{number}")
        return dice.sample(models, dice.randint(1, len(models)))

    def _crew(self, fates: Sequence[Fate], terms: Terms) -> Sequence[Account]:
        return run(fates, self._folder / _RECORDING, self._folder, at_once=terms.at_once, seconds=terms.seconds)

    def _state(self, name: str, scenario: Scenario) -> tuple[list[str], int]:
        """Say what is damaged, and how many bytes there are, receipts and leases aside."""
        unsound, stored = [], 0
        for version in scenario.versions:
            found = self._command("verify", name, version)
            unsound += [str(one) for one in found["environments"] if not found["sound"]]
            figures = self._command("report", name, version)
            stored += sum(one["bytes"] for one in figures["environments"])
        return unsound, stored

    def _command(self, command: str, name: str, version: str, *options: str) -> Any:
        words = [command, self._url(name, version), "--storage-options", str(self._options), "--json", *options]
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        if not done.stdout:
            raise RuntimeError(f"megacache {command}: {done.stderr}")
        return json.loads(done.stdout)

    def _url(self, name: str, version: str) -> str:
        return f"s3://{_BUCKET}/{name}/{version}"

    def _throttle(self, share: float) -> None:
        with urlopen(f"{self._endpoint}{CONTROL}?share={share}", timeout=_START_SECONDS):
            pass


@contextmanager
def fleet(folder: Path, models: Mapping[str, Sequence[str]], cache: Path) -> Iterator[Fleet]:
    """Compile models for real, each once, in a folder for PyTorch's cache; serve a store for the length of a block."""
    record(folder / _RECORDING, tuple(dict.fromkeys(chain.from_iterable(models.values()))), cache)
    port = free_port()
    argv = [executable, "-m", "examples.fleet.server", str(port), str(folder / _LOG)]
    with running(argv, log=folder / "server.log", cwd=REPOSITORY) as child:
        wait_until(lambda: accepts(port), _START_SECONDS, "moto", child=child)
        send(port, "PUT", f"/{_BUCKET}")
        yield Fleet(folder, models, f"http://{HOST}:{port}")


def compilations(outcome: Outcome) -> Counter[tuple[Place, str]]:
    """Count how often each graph was compiled, those aside that a worker compiles in the end."""
    return Counter((outcome.places[one.number], graph) for one in outcome.accounts for graph in one.compiling)
