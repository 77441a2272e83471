"""An S3 server that refuses a conditional create is written to without one."""

import logging
import threading
from collections.abc import Iterator

import pytest

from megacache._runtime import Deadline
from megacache._store import Store
from megacache.errors import UnavailableError
from tests.kit.builders import artifacts
from tests.kit.servers import moto
from tests.kit.servers.moto import MotoServer
from tests.kit.torchless import Compiler


@pytest.fixture(scope="module", params=["400", "501"])
def refusing(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[MotoServer]:
    """Serve S3 by a server that answers so to `If-None-Match`."""
    with moto.serve(tmp_path_factory.mktemp("refusing"), conditions=request.param) as server:
        yield server


def opened(server: MotoServer, name: str) -> Store:
    """Open a cache that no other test uses."""
    found = server.server
    return Store.open(f"{found.url}/{name}", storage_options=found.storage_options, deadline=Deadline.after(60))


def test_publications_arrive(refusing: MotoServer, compiler: Compiler, name: str) -> None:
    """What is published there is found, by those that publish the same again as well."""
    url, options = f"{refusing.server.url}/{name}", refusing.server.storage_options
    compiler.compile(*artifacts(3))
    assert compiler.publish(url, options, 60).status == "published"
    assert compiler.publish(url, options, 60).status == "covered"
    assert compiler.warm(url, options, 60).status == "loaded"


def test_refusal_is_remembered_and_said_once(refusing: MotoServer, name: str, caplog: pytest.LogCaptureFixture) -> None:
    """Only the first object, in a process, is tried with a condition, and only then the log is told."""
    caplog.set_level(logging.WARNING, "megacache")
    refusing.forget()
    for key in ("one", "two"):
        assert opened(refusing, name).create(key, b"1") is True
    assert [line.rpartition("/")[2] for line in refusing.requests()] == ["one", "one", "two"]
    assert [record.getMessage() for record in caplog.records] == [
        f"no conditional create: url=s3://megacache-test/{name}; of writers that race for one object the last wins"
    ]


def test_writers_that_are_refused_together_say_it_once(
    refusing: MotoServer, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Threads that learn it at the same time all write, and the log is told once."""
    store = opened(refusing, name)
    threads = [threading.Thread(target=store.create, args=(f"race/{n}", b"1")) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(store.list()) == 8
    assert len(caplog.records) == 1


def test_other_faults_are_not_taken_for_a_refusal(faulty: MotoServer, name: str) -> None:
    """A server that refuses the object, with a condition and without, is told as it is, and asked with one again."""
    for _ in range(2):
        faulty.forget()
        faulty.fault(f"PUT .*{name}", "400", times=2)
        with pytest.raises(UnavailableError, match="HTTP 400 InvalidArgument"):
            opened(faulty, name).create("one", b"1")
        assert len(faulty.requests()) == 2
    assert opened(faulty, name).create("one", b"1") is True
    assert opened(faulty, name).create("one", b"2") is False
