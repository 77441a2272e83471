"""Which files travel beside the artifacts of graphs: what these do not hold, and nothing twice."""

from collections.abc import Callable
from pathlib import PurePath

import pytest

from megacache._bundle import unseal
from tests.cuda.journeys import Journey, trips
from tests.kit.cuda_standin import Hosts, Start

OTHERS = {"fxgraph", "aotautograd", "megacache"}
PLAIN = ("pointwise", "train", "growing", "dynamic", "cudagraphs", "flex", "pointwise_pool", "train_pool")


def restored(start: Start) -> list[str]:
    """Name the files that a warm start put in place before the program compiled, without artifacts and its own."""
    paths = [PurePath(path) for path in start.told["restored"]]
    return sorted(path.name for path in paths if not OTHERS & set(path.parts))


@trips(*PLAIN)
def test_kernels_of_graphs_travel_in_their_artifacts(journey: Journey) -> None:
    """The kernels of graphs do not travel a second time as files; only Triton's module for the driver does."""
    names = restored(journey.warm)
    assert [name for name in names if not name.startswith("cuda_utils")] == []
    assert {PurePath(name).suffix for name in names} == {".so"}


@trips("user_outside", "user_before", "user_outside_pool")
def test_kernels_outside_of_graphs_travel_as_files(journey: Journey) -> None:
    """A kernel that is in no graph travels as files, once, and may be put in place wherever Triton could look."""
    names = set(restored(journey.warm))
    assert [name for name in names if name.endswith(".cubin")] == ["_add.cubin"]
    assert journey.cold.told["published"][0]["files"] == len(names)


@pytest.mark.parametrize("program", ["pointwise", "train", "user_outside"])
def test_pool_of_workers_makes_no_difference(program: str, journey_of: Callable[[str], Journey]) -> None:
    """Kernels that were compiled in Inductor's pool travel in the same files as those that were not."""
    alone, pooled = journey_of(program), journey_of(f"{program}_pool")
    assert pooled.cold.told["published"][0]["files"] == alone.cold.told["published"][0]["files"]
    assert restored(pooled.warm) == restored(alone.warm)


def test_kernel_outside_of_graphs_that_is_gone_is_told_on_both_sides(hosts: Hosts) -> None:
    """Whoever publishes without its files is warned, and whoever warms from that, too."""
    cold, warm = hosts.start("user_gone"), hosts.start("user_outside")
    manifests = [unseal(path.read_bytes()) for path in hosts.store.rglob("bundles/*.msgpack")]
    missing = {PurePath(path).name for manifest in manifests for _, path in manifest.files.missing}
    assert missing >= {"_add.json", "_add.cubin"}
    for warnings in (cold.told["published"][0]["warnings"], warm.told["warm"]["warnings"]):
        assert [one for one in warnings if "had been removed before it was published" in one]
