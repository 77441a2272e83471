"""What is published on a GPU serves a fresh process with empty folders elsewhere, and nothing is compiled again."""

from typing import Any

from tests.cuda.journeys import Journey, every_trip
from tests.kit.cuda_standin import Start

pytestmark = every_trip


def went_well(start: Start) -> None:
    """Check that the program did what it does."""
    assert start.told, start.stderr
    assert start.told["failed"] == "", start.stderr


def test_cold_start_publishes(journey: Journey) -> None:
    """A cold start compiles its kernels, tunes them if it should, and publishes them under the name of the GPU."""
    cold = journey.cold
    went_well(cold)
    assert cold.kernels
    assert (cold.trials > 0) == journey.trip.tunes
    first, second = cold.told["published"]
    assert (first["status"], first["warnings"]) == ("published", [])
    assert second["status"] == "unchanged"
    assert [folder.name for folder in journey.hosts.store.iterdir()] == ["nvidia-h100-80gb-hbm3"]


def test_every_graph_hits(journey: Journey) -> None:
    """A warm start finds each graph in both caches, none missed, none bypassed, and each is counted once."""
    warm = journey.warm
    went_well(warm)
    assert warm.told["warm"]["status"] == "loaded", warm.told["warm"]
    assert warm.told["warm"]["warnings"] == []
    assert [found(warm, cache) for cache in ("inductor", "aot_autograd")] == [
        (graphs, 0, 0) for graphs in journey.trip.graphs
    ]
    if not journey.trip.begins_again:
        counted = [tuple(states.values()) for states in warm.told["lookups"].values()]
        assert counted == [(graphs, 0, 0) for graphs in journey.trip.graphs]


def found(start: Start, cache: str) -> tuple[int, ...]:
    """Give hits, misses and bypasses of a cache, as the receipt has them."""
    lookups: dict[str, Any] = start.told["receipt"][cache]
    return tuple(lookups[state] for state in ("hit", "missed", "bypassed"))


def test_kernels_are_not_compiled_again(journey: Journey) -> None:
    """A warm start runs the kernels of the cold one, and ptxas does not run."""
    assert journey.warm.kernels == []
    assert journey.warm.launched
    assert journey.warm.launched.keys() <= journey.cold.launched.keys()


def test_nothing_is_built_again(journey: Journey) -> None:
    """No C compiler makes anything in a warm start: neither Triton's view of the driver nor a launcher."""
    assert journey.warm.builds == []


def test_nothing_is_tuned_again(journey: Journey) -> None:
    """A warm start measures no kernel, for it knows the winners."""
    assert journey.warm.trials == 0


def test_receipt_says_warm(journey: Journey) -> None:
    """The receipt calls the start warm, with no kernel compiled anew and nothing loaded in vain."""
    receipt = journey.warm.told["receipt"]
    assert receipt["verdict"].startswith("warm: "), receipt["verdict"]
    assert (receipt["triton_kernels"], receipt["cpp_kernels"]) == (0, 0)
    assert not any(receipt["unused"].values())
    assert receipt["warnings"] == []


def test_publisher_s_folders_stay_away(journey: Journey) -> None:
    """A warm start writes nothing where the publisher had its folders."""
    assert journey.warm.strays == ()


def test_nothing_is_published_twice(journey: Journey) -> None:
    """A warm start has nothing to publish."""
    assert [result["status"] for result in journey.warm.told["published"]] == ["unchanged"] * 2


def test_processes_end(journey: Journey) -> None:
    """A process ends within a minute after its work, cold and warm, whatever compiled its kernels."""
    assert (journey.cold.status, journey.warm.status) == (0, 0)


def test_host_without_c_compiler_starts_warm(journey: Journey) -> None:
    """A host on which every C compiler fails runs the program, and hits everything."""
    start = journey.without_compilers
    went_well(start)
    assert start.told["warm"]["status"] == "loaded"
    assert [found(start, cache) for cache in ("inductor", "aot_autograd")] == [
        (graphs, 0, 0) for graphs in journey.trip.graphs
    ]
    assert (start.kernels, start.trials) == ([], 0)
