"""Serve Azure Blob Storage by Azurite, Microsoft's own emulator, where it is installed: `npm install azurite`."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

from tests.kit.servers import BUCKET, HOST, Server, accepts, free_port, running, wait_until

_PROGRAM = "azurite-blob"
_START_SECONDS = 30.0
_ACCOUNT = "devstoreaccount1"
_KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""Of every emulator."""


def available() -> str | None:
    """Return why it cannot run here, or None if it can."""
    for program in ("node", _PROGRAM):
        if shutil.which(program) is None:
            return f"not on the PATH: {program} (npm: azurite)"
    return None if find_spec("adlfs") else "not installed: adlfs"


@contextmanager
def serve(workdir: Path) -> Iterator[Server]:
    """Run Azurite in memory with one container, keeping its log in a folder."""
    port = free_port()
    program = str(shutil.which(_PROGRAM))
    flags = ["--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck", "--silent"]
    argv = [program, "--blobHost", HOST, "--blobPort", str(port), *flags]
    with running(argv, log=workdir / "azurite.log", cwd=workdir) as child:
        wait_until(lambda: accepts(port), _START_SECONDS, "azurite", child=child)
        told = connection_string(port)
        _create_container(told)
        yield Server(
            name="azurite",
            url=f"abfs://{BUCKET}",
            storage_options={"connection_string": told},
            creates_if_absent=True,
            checks_credentials=True,
        )


def connection_string(port: int) -> str:
    """Say where an emulator is, and how it is asked."""
    endpoint = f"BlobEndpoint=http://{HOST}:{port}/{_ACCOUNT}"
    return f"DefaultEndpointsProtocol=http;AccountName={_ACCOUNT};AccountKey={_KEY};{endpoint};"


def _create_container(told: str) -> None:
    from azure.storage.blob import ContainerClient  # it comes with adlfs

    with ContainerClient.from_connection_string(told, BUCKET) as container:
        container.create_container()
