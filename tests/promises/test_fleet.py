"""A small fleet keeps the promises that `nox -s fleet` asks of a large one, and what breaks them is told."""

import dataclasses
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from examples.fleet.crew import Account
from examples.fleet.fleet import Fleet, Outcome, Terms, fleet
from examples.fleet.measures import bars, measured
from examples.fleet.scenarios import NEW, OLD, SCENARIOS, Place, Scenario
from examples.fleet.table import day, markdown
from examples.fleet.traffic import Request
from tests.kit.processes import Processes

MODELS = {OLD: ("doubling",), NEW: ("doubling", "cosine")}
TERMS = Terms(workers=20, at_once=10, window=2.0, speed=5.0, seconds=300.0)
SMALL = Scenario(name="small", told="two kinds of workers", wait=120.0, kinds=("this machine", "H100, AVX2"))


@pytest.fixture(scope="module")
def started(probes: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Fleet]:
    """Serve a store for workers that have models of one graph."""
    folder = tmp_path_factory.mktemp("fleet")
    with fleet(folder, MODELS, Processes(folder / "compiled", probes).new_folder()) as found:
        yield found


def test_small_fleet_loses_nothing(started: Fleet) -> None:
    """Of twenty workers of two kinds two compile, the rest loads that, and every bar is held."""
    alone = Scenario(name="alone", told="one worker", wait=0.0)
    unique = {OLD: started.run(alone, dataclasses.replace(TERMS, workers=1)).stored}
    outcome = started.run(SMALL, TERMS)
    found = measured(outcome, unique)
    judged = list(bars(outcome, found))
    assert [one for one in judged if not one.held] == []
    assert (len(judged), found["starts"], found["compilations"]) == (7, {"loaded": 18, "miss": 2}, 2)


SERVED = Place()
WARM = {
    "warm": "loaded",
    "waited": False,
    "compiled": [],
    "publish": "unchanged",
    "publish_reason": "",
    "seconds_ready": 1.0,
}
ASKED = Request(
    scenario="x", node=0, worker=0, step="warm", method="LIST", key="", status=200, bytes_in=0, bytes_out=10
)
FETCHED = dataclasses.replace(ASKED, method="GET", key="v1/x/chunks/y", bytes_out=100)
UNIQUE = {OLD: 200}


def outcome(**changes: Any) -> Outcome:
    """Make the outcome of a fleet of one warm worker, for which all bars are held."""
    whole = Outcome(
        scenario=SCENARIOS[1],
        accounts=[account()],
        places={0: SERVED, 1: SERVED},
        requests=[ASKED, FETCHED],
        checks={SERVED: WARM},
        checked=[],
        stored=200,
        compacted=200,
        unsound=[],
        killed=frozenset(),
    )
    return dataclasses.replace(whole, **changes)


def account(number: int = 0, status: int = 0, *compiling: str, **told: Any) -> Account:
    """Give the account of a worker; one that did not end by itself, or compiled, was not warm."""
    own = {} if status else {**WARM, "warm": "miss" if compiling else "loaded", **told}
    return Account(number=number, started=0.0, status=status, compiling=compiling, told=own)


@pytest.mark.parametrize(
    ("changes", "missed"),
    [
        ({}, []),
        ({"unsound": ["a chunk is gone"]}, ["nothing lost"]),
        ({"checks": {SERVED: {**WARM, "compiled": ["a"]}}}, ["nothing lost"]),
        ({"checks": {SERVED: {}}}, ["nothing lost"]),
        ({"accounts": [account(), account(1, 1)]}, ["nothing lost"]),
        ({"accounts": [account(), account(1, -9)], "killed": frozenset({1})}, []),
        ({"accounts": [account(publish="unavailable")]}, ["nothing lost"]),
        ({"stored": 301}, ["stored over unique"]),
        ({"compacted": 211}, ["stored over unique after compaction"]),
        ({"requests": [ASKED, FETCHED, FETCHED]}, ["bytes out of the store for a node over unique"]),
        (
            {
                "accounts": [account(), account(1, -9)],
                "killed": frozenset({1}),
                "requests": [dataclasses.replace(FETCHED, worker=1), ASKED, FETCHED],
            },
            [],
        ),
        (
            {
                "accounts": [account(), account(1, -9)],
                "killed": frozenset({1}),
                "requests": [dataclasses.replace(FETCHED, worker=1), ASKED, FETCHED, FETCHED],
            },
            ["bytes out of the store for a node over unique"],
        ),
        ({"requests": [FETCHED] + [ASKED] * 5}, ["requests of a warm worker"]),
        ({"requests": [ASKED, dataclasses.replace(ASKED, step="again")]}, ["a publication with nothing new"]),
        ({"requests": [ASKED, dataclasses.replace(ASKED, step="publish")]}, ["a publication with nothing new"]),
        (
            {
                "scenario": dataclasses.replace(SCENARIOS[1], throttled=0.2),
                "accounts": [account(publish="unavailable")],
                "requests": [ASKED, dataclasses.replace(ASKED, step="again")],
            },
            [],
        ),
        ({"accounts": [account(), account(1, 0, "a", "a")]}, ["compilations of a graph"]),
        (
            {"accounts": [account(), account(1, -9, "a"), account(2, 0, "a")], "killed": frozenset({1})},
            [],
        ),
        (
            {"accounts": [account(), account(1, -9, "a"), account(2, 0, "a", "a")], "killed": frozenset({1})},
            ["compilations of a graph"],
        ),
    ],
)
def test_bars(changes: Mapping[str, Any], missed: list[str]) -> None:
    """Each bar is missed by what it is there for, and by nothing else."""
    made = outcome(**{"places": dict.fromkeys(range(3), SERVED), **changes})
    judged = bars(made, measured(made, UNIQUE))
    assert [one.name for one in judged if not one.held] == missed


def test_table_tells_numbers_and_costs() -> None:
    """A scenario is a row, a bar that is missed is told, and a day is charged by class of request."""
    made = outcome(unsound=["gone"])
    found = measured(made, UNIQUE)
    judged = {one.name: [one.told, one.held] for one in bars(made, found)}
    text = markdown({"scenarios": {"cold": {**found, "bars": judged}}, "sizes": [found]})
    assert "| cold | 1 | 0 | 2.0 |" in text
    assert "MISSED in cold: nothing lost: gone" in text
    costs = day({"workers": 10, "writes": 1_000, "reads": 10_000, "stored": 30 * 2**30}, 100)
    assert [round(cost, 3) for cost in costs.values()] == [0.113, 0.11]
