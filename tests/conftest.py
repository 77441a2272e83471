"""Servers, stores and processes that the tests share."""

import asyncio
import logging
import os
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import megacache
from megacache._runtime import forget
from tests.kit import compile_once, torchless
from tests.kit.places import Place, places
from tests.kit.processes import Processes, keep_probes, step
from tests.kit.servers import Server, azurite, fake_gcs, moto, radosgw
from tests.kit.torchless import Compiler
from tests.kit.without_torch import WatchedFolder, watched

os.environ.update(fake_gcs.ENVIRONMENT)
os.environ["MEGACACHE_NODE_MAX_BYTES"] = "0"  # a test of what a store does must ask the store
COMPILERS = ("g++", "gcc", "c++", "cc", "clang")


def pytest_report_header() -> str:
    """Say which megacache is tested: the installed wheel or the working tree."""
    return f"megacache {megacache.__version__} from {Path(megacache.__file__).parent}"


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Skip what is marked `nightly`, unless `-m` says otherwise."""
    if "nightly" in config.option.markexpr:
        return
    for item in items:
        if item.get_closest_marker("nightly"):
            item.add_marker(pytest.mark.skip(reason="takes long or needs large packages: nox -s nightly"))


@pytest.fixture(scope="session", autouse=True)
def gpus() -> Iterator[Mapping[str, str | None]]:
    """Hide GPUs, which add facts and bundles to what is compiled on the CPU; give the variable that shows them."""
    with pytest.MonkeyPatch.context() as patch:
        before = os.environ.get("CUDA_VISIBLE_DEVICES")
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        yield {"CUDA_VISIBLE_DEVICES": before}


@pytest.fixture(scope="session", autouse=True)
def compiled_once(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Let each source in C++ be compiled once, whichever test or worker comes first."""
    base = tmp_path_factory.getbasetemp()
    kept = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "compiled-once"
    folder = compile_once.install(base / "compile-once", kept)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(folder), prepend=os.pathsep)
        yield


@pytest.fixture(autouse=True)
def forgotten() -> None:
    """Let each test begin as a process does: nothing is left of the calls that others made."""
    forget()


@pytest.fixture(scope="session")
def probes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Compile the ISA probes once; doing it again takes each process longer than compiling its model."""
    work, target = tmp_path_factory.mktemp("compiler"), tmp_path_factory.mktemp("probes")
    processes = Processes(work, None)
    folder = processes.new_folder()
    processes.run(step("run", model="doubling"), folder=folder)
    keep_probes(folder, target)
    return target


@pytest.fixture
def processes(tmp_path: Path, probes: Path) -> Processes:
    """Start children with fresh cache folders."""
    return Processes(tmp_path / "processes", probes)


@pytest.fixture
def fresh_processes(tmp_path: Path, probes: Path) -> Processes:
    """Start children that import PyTorch themselves, where that is the point."""
    return Processes(tmp_path / "processes", probes, fresh=True)


@pytest.fixture(scope="session")
def no_compiler(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str | None]:
    """Give an environment in which no C++ compiler is to be found."""
    folder = tmp_path_factory.mktemp("bin")
    for path in _programs():
        if not any(compiler in path.name for compiler in COMPILERS) and not (folder / path.name).exists():
            (folder / path.name).symlink_to(path)
    return {"PATH": str(folder), "CXX": None}


def _programs() -> Iterator[Path]:
    for folder in os.environ["PATH"].split(os.pathsep):
        if Path(folder).is_dir():
            yield from (path for path in Path(folder).iterdir() if os.access(path, os.X_OK))


@pytest.fixture(scope="session")
def moto_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[moto.MotoServer]:
    """Serve S3 by moto."""
    with moto.serve(tmp_path_factory.mktemp("moto")) as server:
        yield server


@pytest.fixture
def faulty(moto_server: moto.MotoServer) -> Iterator[moto.MotoServer]:
    """Give the moto server to a test that makes it fail, and heal it afterwards."""
    yield moto_server
    moto_server.heal()


@pytest.fixture(scope="session")
def moto_s3(moto_server: moto.MotoServer) -> Server:
    """Describe the moto server to those who need no faults."""
    return moto_server.server


@pytest.fixture(scope="session")
def unconditional_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve S3 by a server that ignores conditions, as several products do."""
    with moto.serve(tmp_path_factory.mktemp("unconditional"), conditions="ignored") as server:
        yield server.server


@pytest.fixture(scope="session")
def refusing_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve S3 by a server that refuses conditions, as OSS and older gateways do."""
    with moto.serve(tmp_path_factory.mktemp("refusing"), conditions="501") as server:
        yield server.server


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve GCS by fake-gcs-server."""
    with fake_gcs.serve(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="session")
def radosgw_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve S3 by Ceph's own gateway, where it is installed."""
    yield from _where_installed(radosgw, tmp_path_factory.mktemp("radosgw"))


@pytest.fixture(scope="session")
def azure_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve Azure by its own emulator, where it is installed."""
    yield from _where_installed(azurite, tmp_path_factory.mktemp("azurite"))


def _where_installed(product: Any, folder: Path) -> Iterator[Server]:
    if missing := product.available():
        pytest.skip(f"{product.__name__.rpartition('.')[2]}: {missing}")
    with product.serve(folder) as server:
        yield server


@pytest.fixture(scope="session")
def stores(
    moto_s3: Server, gcs_server: Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Mapping[str, Place]]:
    """Give stores that can be made to fail, by kind."""
    with places(moto_s3, gcs_server, tmp_path_factory.mktemp("disk")) as found:
        yield found


@pytest.fixture(params=["disk", "s3", "gs"])
def place(request: pytest.FixtureRequest, stores: Mapping[str, Place], name: str) -> Iterator[Place]:
    """Choose an empty cache in a store that can be made to fail."""
    found = stores[request.param].under(name)
    yield found
    found.heal()


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Compiler:
    """Stand in for torch."""
    return torchless.install(monkeypatch, tmp_path / "cache")


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    """Let the clients of S3 and GCS wait a hundredth of what they would between two tries."""
    monkeypatch.setattr("gcsfs.retry.asyncio", SimpleNamespace(sleep=lambda seconds: asyncio.sleep(seconds / 100)))
    monkeypatch.setattr("botocore.retryhandler.random", SimpleNamespace(random=lambda: 0.01))
    caplog.set_level(logging.CRITICAL, "gcsfs")


@pytest.fixture
def watched_place(tmp_path: Path) -> Iterator[WatchedFolder]:
    """Let warm starts in this process bring nothing to PyTorch."""
    with watched(tmp_path / "place") as found:
        yield found


@pytest.fixture
def name() -> str:
    """Name a cache that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"
