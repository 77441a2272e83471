"""A graph is of use only where the custom operators that it calls are defined as they were where it was compiled."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from megacache._compiler import called_operators, definitions
from tests.kit.processes import Answer, Processes, Step, step

ORDERS = pytest.mark.parametrize(
    "first",
    [
        pytest.param(True, id="defined before warming", marks=pytest.mark.nightly),
        pytest.param(False, id="defined after warming"),
    ],
)


def steps(url: str, *, first: bool, model: str = "bumped", **definition: bool) -> Sequence[Step]:
    """Warm, run a model that calls an operator, run it without compiling it, and publish."""
    define, warm = step("define", **definition), step("warm", url=url)
    begin = (define, warm) if first else (warm, define)
    return (*begin, step("run", model=model), step("eager", model=model), step("publish", url=url))


def cold(url: str, model: str = "bumped", **definition: bool) -> Sequence[Step]:
    """Run a model that calls an operator, and publish."""
    return step("define", **definition), step("run", model=model), step("publish", url=url)


def last_three(answers: Sequence[Answer]) -> Sequence[Answer]:
    """Give what the model, the model without a compiler, and the publication answered."""
    return answers[-3:]


@ORDERS
def test_stable_operator_starts_warm(first: bool, processes: Processes, tmp_path: Path) -> None:
    """An operator that is defined as before is no obstacle, whether it is defined before the warm start or after it."""
    url = str(tmp_path / "store")
    *_, published = processes.run(*cold(url))
    assert published["status"] == "published"
    ran, eager, again = last_three(processes.run(*steps(url, first=first)))
    assert (ran["aot_hit"], ran["aot_miss"], ran["fx_miss"]) == (1, 0, 0)
    assert ran["sum"] == pytest.approx(eager["sum"])
    assert again["status"] == "unchanged"
    assert again["receipt"]["refused"] == {}


@ORDERS
def test_corrected_schema_is_a_miss_once(first: bool, processes: Processes, tmp_path: Path) -> None:
    """A graph is compiled anew after `mutates_args` was corrected; then each definition finds its own graph."""
    url = str(tmp_path / "store")
    _, before, _ = processes.run(*cold(url, mutates=False))
    answers = processes.run(*steps(url, first=first))
    ran, eager, published = last_three(answers)
    assert (ran["aot_hit"], ran["aot_miss"]) == (0, 1)
    assert ran["sum"] == pytest.approx(eager["sum"])
    assert ran["sum"] != pytest.approx(before["sum"])
    assert published["status"] == "published"
    if first:
        assert "shop::bump" in " ".join(answers[1]["warnings"])
    else:
        assert published["receipt"]["refused"] == {"shop::bump": 1}
        assert "custom operator shop::bump" in " ".join(published["receipt"]["warnings"])

    ran, eager, again = last_three(processes.run(*steps(url, first=first)))
    assert (ran["aot_hit"], ran["aot_miss"], ran["fx_miss"]) == (1, 0, 0)
    assert ran["sum"] == pytest.approx(eager["sum"])
    assert again["status"] == "unchanged"

    ran, _, again = last_three(processes.run(*steps(url, first=first, mutates=False)))
    assert (ran["aot_hit"], ran["aot_miss"], ran["fx_miss"]) == (1, 0, 0)
    assert ran["sum"] == before["sum"]
    assert again["status"] == "unchanged"


def test_other_definition_does_not_cover(processes: Processes, tmp_path: Path) -> None:
    """What was compiled under one definition is published beside the same key of another, by processes started cold."""
    url = str(tmp_path / "store")
    processes.run(*cold(url, model="waved", right=False))
    *_, published = processes.run(*cold(url, model="waved"))
    assert published["status"] == "published"
    *_, again = processes.run(*cold(url, model="waved"))
    assert again["status"] in {"covered", "duplicate"}
    ran, eager, _ = last_three(processes.run(*steps(url, first=False, model="waved")))
    assert (ran["aot_hit"], ran["aot_miss"], ran["fx_miss"]) == (1, 0, 0)
    assert ran["sum"] == pytest.approx(eager["sum"])


@ORDERS
def test_corrected_backward_is_a_miss(first: bool, processes: Processes, tmp_path: Path) -> None:
    """The formula of a backward is a part of the graph that no key holds."""
    url = str(tmp_path / "store")
    processes.run(*cold(url, model="waved", right=False))
    ran, eager, _ = last_three(processes.run(*steps(url, first=first, model="waved")))
    assert (ran["aot_hit"], ran["aot_miss"]) == (0, 1)
    assert ran["sum"] == pytest.approx(eager["sum"])


def test_refused_graph_leaves_the_cache_folder(processes: Processes, tmp_path: Path) -> None:
    """A later process in the same folder that cannot reach the store does not find what was refused."""
    url, folder = str(tmp_path / "store"), processes.new_folder()
    processes.run(*cold(url, model="waved", right=False))
    processes.run(step("warm", url=url), step("define"), step("run", model="waved"), folder=folder)
    _, ran, eager = processes.run(
        step("define"), step("run", model="waved"), step("eager", model="waved"), folder=folder
    )
    assert ran["aot_hit"] == 1
    assert ran["sum"] == pytest.approx(eager["sum"])


def test_operators_of_torch_are_no_condition() -> None:
    """PyTorch's own operators are in every key with its source; those of others are found in any text of a graph."""
    content = b"torch.ops.aten.sin.default(y)\ntorch.ops.higher_order.f(torch.ops.shop.bump.default, torch.ops.a_1.b)"
    assert called_operators(memoryview(content)) == {"shop::bump", "a_1::b"}


def test_definition_is_what_an_operator_does() -> None:
    """Schema, tags and functions count; where they stand in the source does not, nor does an unknown operator."""
    first, moved = _fake(), _fake()
    assert first == moved
    assert len({first, _fake(mutates=True), _fake(tagged=True), _fake(other=True)}) == 4
    assert definitions(["shop::unknown"]) == {}


def _fake(*, mutates: bool = False, tagged: bool = False, other: bool = False) -> str:
    options: dict[str, Any] = {"tags": [torch.Tag.flexible_layout]} if tagged else {}

    @torch.library.custom_op("shop::described", mutates_args=("x",) if mutates else (), **options)
    def described(x: torch.Tensor) -> torch.Tensor:
        return x + 1

    def same_shape(x: torch.Tensor) -> torch.Tensor:
        return torch.empty_like(x)

    def other_shape(x: torch.Tensor) -> torch.Tensor:
        return x.new_empty([1 if name in {"a", "b"} else 2 for name in "ab"])

    described.register_fake(other_shape if other else same_shape)
    return definitions(["shop::described"])["shop::described"]
