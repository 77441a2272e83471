"""Servers, stores and processes that the tests share."""

import os
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest

import megacache
from tests.processes import Processes, keep_probes, step
from tests.servers import Server, fake_gcs, moto, radosgw
from tests.without_torch import Place, watched

os.environ.update(fake_gcs.ENVIRONMENT)


def pytest_report_header() -> str:
    """Say which megacache is tested: the installed wheel or the working tree."""
    return f"megacache {megacache.__version__} from {Path(megacache.__file__).parent}"


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
    with moto.serve(tmp_path_factory.mktemp("unconditional"), conditional=False) as server:
        yield server.server


@pytest.fixture(scope="session")
def gcs_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve GCS by fake-gcs-server."""
    with fake_gcs.serve(tmp_path_factory.mktemp("gcs")) as server:
        yield server


@pytest.fixture(scope="session")
def radosgw_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """Serve S3 by Ceph's own gateway, where it is installed."""
    missing = radosgw.available()
    if missing:
        pytest.skip(f"radosgw: {missing}")
    with radosgw.serve(tmp_path_factory.mktemp("radosgw")) as server:
        yield server


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """Let warm starts in this process bring nothing to PyTorch."""
    with watched(tmp_path / "place") as found:
        yield found


@pytest.fixture
def name() -> str:
    """Name a cache that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}"
