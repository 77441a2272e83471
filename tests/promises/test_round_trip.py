"""A model compiled in one process starts warm in another, on every kind of store."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from tests.kit.processes import Answer, Processes, step
from tests.kit.servers import Server, azurite, radosgw, web
from tests.kit.servers.moto import MotoServer

MODELS = ("inference", "training", "dynamic", "broken")
GRAPHS = {"inductor": 6, "aot_autograd": 5}
STORES = ("file", "web", "s3", "radosgw", "gcs", "azure")
"""The folder is served on the web as well."""
OPTIONAL = {"radosgw": radosgw.available, "azure": azurite.available}


@dataclass(frozen=True, slots=True, kw_only=True)
class Target:
    """One place to publish to."""

    url: str
    storage_options: Mapping[str, Any]

    def arguments(self) -> dict[str, Any]:
        """Give the arguments of `warm` and `publish`."""
        return {"url": self.url, "storage_options": self.storage_options}


@pytest.fixture(scope="module")
def targets(
    tmp_path_factory: pytest.TempPathFactory,
    moto_server: MotoServer,
    gcs_server: Server,
    request: pytest.FixtureRequest,
) -> Iterator[dict[str, Target]]:
    """Choose one prefix in each store that this machine can run."""
    servers = {"s3": moto_server.server, "gcs": gcs_server}
    servers |= {name: request.getfixturevalue(f"{name}_server") for name, why in OPTIONAL.items() if why() is None}
    found = {
        name: Target(url=f"{server.url}/round-trip", storage_options=server.storage_options)
        for name, server in servers.items()
    }
    folder = tmp_path_factory.mktemp("store")
    with web.serve(folder) as (url, _):
        here = {"file": folder.as_uri(), "web": url}
        yield {name: Target(url=place, storage_options={}) for name, place in here.items()} | found


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory, probes: Path, targets: dict[str, Target]) -> dict[str, Answer]:
    """Compile all models in a process of their own and publish them to every store."""
    steps = [step("run", model=model) for model in MODELS]
    written = [name for name in targets if name != "web"]
    steps += [step("publish", **targets[name].arguments()) for name in written]
    answers = Processes(tmp_path_factory.mktemp("cold"), probes, fresh=True).run(*steps)
    found = dict(zip([*MODELS, *written], answers, strict=True))
    return {**found, "web": found["file"]}


@pytest.fixture(scope="module", params=STORES)
def warm(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    probes: Path,
    targets: dict[str, Target],
    cold: dict[str, Answer],
) -> dict[str, Answer]:
    """Warm a fresh process from one store and run all models in it."""
    if request.param not in targets:
        pytest.skip(f"{request.param}: {OPTIONAL[request.param]()}")
    there = targets[request.param].arguments()
    steps = [step("warm", **there), *(step("run", model=model) for model in MODELS), step("publish", **there)]
    answers = Processes(tmp_path_factory.mktemp("warm"), probes, fresh=True).run(*steps)
    return dict(zip(["warm", *MODELS, "publish"], answers, strict=True)) | {"published": cold[request.param]}


def test_cold_process_misses_everything(cold: dict[str, Answer]) -> None:
    """Without a warm start, no graph of any model is found."""
    for model in MODELS:
        assert (cold[model]["fx_hit"], cold[model]["aot_hit"]) == (0, 0)
        assert cold[model]["fx_miss"] > 0
        assert cold[model]["aot_miss"] > 0


def test_everything_is_published_and_loaded(warm: dict[str, Answer]) -> None:
    """What torch recorded is published, and a fresh process is given all of it."""
    assert warm["published"]["status"] == "published"
    assert warm["warm"]["status"] == "loaded"
    assert warm["published"]["artifacts"] == warm["warm"]["artifacts"] == warm["warm"]["info"] == GRAPHS
    assert warm["published"]["bytes_stored"] == warm["warm"]["bytes_stored"] < warm["warm"]["bytes_raw"]


@pytest.mark.parametrize("model", MODELS)
def test_fresh_process_hits_everything(model: str, warm: dict[str, Answer], cold: dict[str, Answer]) -> None:
    """A fresh process with an empty cache folder hits every lookup, and computes the same bits."""
    assert (warm[model]["fx_miss"], warm[model]["aot_miss"]) == (0, 0)
    assert warm[model]["fx_hit"] == cold[model]["fx_miss"]
    assert warm[model]["aot_hit"] == cold[model]["aot_miss"]
    assert warm[model]["digest"] == cold[model]["digest"]


def test_warm_process_has_nothing_to_publish(warm: dict[str, Answer]) -> None:
    """What torch records again when it hits is known to be in the store."""
    assert warm["publish"]["status"] == "unchanged"


def test_memory_store_serves_the_process_that_holds_it(processes: Processes, name: str) -> None:
    """`memory://` works within one process, for those who test with it."""
    url = f"memory://{name}"
    runs = [step("run", model=model) for model in MODELS]
    answers = processes.run(
        *runs,
        step("publish", url=url),
        step("start_afresh", folder=str(processes.new_folder())),
        step("warm", url=url),
        *runs,
    )
    cold, (published, _, warmed), warm = answers[:4], answers[4:7], answers[7:]
    assert (published["status"], warmed["status"]) == ("published", "loaded")
    for before, after in zip(cold, warm, strict=True):
        assert (after["fx_hit"], after["fx_miss"], after["aot_miss"]) == (before["fx_miss"], 0, 0)
        assert after["digest"] == before["digest"]
