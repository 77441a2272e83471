"""Hosts with one kind of GPU and two kinds of CPU: what holds nothing for the CPU is compiled once for both."""

from pathlib import Path

import pytest

from megacache._bundle import Environment, environment_prefix
from tests.cuda.test_journey import found, went_well
from tests.kit.cuda_standin import Hosts, Start

OTHER_CPU = {"ATEN_CPU_CAPABILITY": "default"}
"""A CPU without the vectors of this one, as PyTorch sees it."""


def bundles(store: Path) -> dict[str, list[str]]:
    """Name the bundles of each environment by its folder."""
    return {
        folder.name: sorted(path.name for path in (folder / "bundles").glob("*.msgpack"))
        for folder in sorted(store.glob("*/*"))
    }


def places(start: Start) -> tuple[str, str]:
    """Name the folders of the start's own environment, and of the one for any CPU."""
    environment = Environment(facts=start.told["environment"]["facts"])
    own, wider = (environment_prefix(one.device, one.fingerprint) for one in environment.readable)
    return own.fingerprint, wider.fingerprint


@pytest.mark.parametrize(
    ("program", "graphs"), [("pointwise", (1, 1)), ("train", (2, 1)), ("user_tuned", (1, 1)), ("flex", (1, 1))]
)
def test_graphs_of_a_gpu_serve_beside_any_cpu(program: str, graphs: tuple[int, int], hosts: Hosts) -> None:
    """What one kind of host has published is loaded on the other, which compiles nothing and has nothing to publish."""
    cold = hosts.start(program)
    went_well(cold)
    assert [one["status"] for one in cold.told["published"]] == ["published", "unchanged"]
    own, wider = places(cold)
    assert bundles(hosts.store).keys() == {wider}
    other = hosts.start(program, environment=OTHER_CPU)
    went_well(other)
    assert places(other) != (own, wider)
    assert places(other)[1] == wider
    assert (other.told["warm"]["status"], other.told["warm"]["warnings"]) == ("loaded", [])
    assert [found(other, cache) for cache in ("inductor", "aot_autograd")] == [(one, 0, 0) for one in graphs]
    assert (other.kernels, other.builds, other.trials) == ([], [], 0)
    assert [one["status"] for one in other.told["published"]] == ["unchanged"] * 2


def test_graphs_of_a_cpu_stay_with_it(hosts: Hosts) -> None:
    """Of a graph for the GPU and one for the CPU, the other kind of host loads the first, and compiles the second."""
    cold = hosts.start("mixed")
    own, wider = places(cold)
    assert {name: len(found) for name, found in bundles(hosts.store).items()} == {own: 1, wider: 1}
    other = hosts.start("mixed", environment=OTHER_CPU)
    went_well(other)
    assert other.told["warm"]["artifacts"] == {"inductor": 1, "aot_autograd": 1}
    assert [found(other, cache) for cache in ("inductor", "aot_autograd")] == [(1, 1, 0)] * 2
    assert other.kernels == []
    published = other.told["published"]
    assert (published[0]["status"], published[0]["artifacts"]) == ("published", {"inductor": 1, "aot_autograd": 1})
    assert bundles(hosts.store).keys() == {own, wider, places(other)[0]}
    for environment in ({}, OTHER_CPU):
        again = hosts.start("mixed", environment=environment)
        assert [found(again, cache) for cache in ("inductor", "aot_autograd")] == [(2, 0, 0)] * 2
        assert (again.kernels, again.builds) == ([], [])
        assert [one["status"] for one in again.told["published"]] == ["unchanged"] * 2
