"""How many requests reach an S3 server."""

from collections import defaultdict

import pytest

from tests.kit.processes import Processes, step
from tests.kit.servers.moto import MotoServer


@pytest.fixture
def there(moto_server: MotoServer, name: str) -> dict[str, object]:
    """Give the arguments of `warm` and `publish` for a prefix of its own."""
    server = moto_server.server
    return {"url": f"{server.url}/{name}/v1", "storage_options": server.storage_options}


def counted(server: MotoServer) -> dict[str, int]:
    """Count the requests since the last `forget`: listings, reads and writes, each by what they concern."""
    found: dict[str, int] = defaultdict(int)
    for line in server.requests():
        method, path = line.split(" ", 1)
        found["LIST" if "list-type=2" in path else f"{method} {path.split('/')[-2]}"] += 1
    return found


def test_each_call_asks_for_no_more_than_it_needs(
    moto_server: MotoServer, processes: Processes, there: dict[str, object]
) -> None:
    """A publication writes four objects, of which a warm start reads three, in its turn; no news asks nothing.

    For its turn it writes a lease, lists once more, and deletes the lease.
    """
    moto_server.forget()
    _, published, unchanged = processes.run(
        step("run", model="doubling"), step("publish", **there), step("publish", **there)
    )
    assert (published["status"], unchanged["status"]) == ("published", "unchanged")
    assert counted(moto_server) == {"LIST": 2, "PUT chunks": 3, "PUT bundles": 2, "DELETE bundles": 1}
    moto_server.forget()
    warmed, _, unchanged = processes.run(step("warm", **there), step("run", model="doubling"), step("publish", **there))
    assert (warmed["status"], unchanged["status"]) == ("loaded", "unchanged")
    assert counted(moto_server) == {"LIST": 1, "GET bundles": 1, "GET chunks": 2}


def test_miss_costs_two_listings_and_one_manifest_of_each_other_environment(
    moto_server: MotoServer, processes: Processes, there: dict[str, object]
) -> None:
    """An empty cache costs two listings, the second to explain the miss; a deadline that is near saves the second."""
    moto_server.forget()
    assert processes.run(step("warm", **there))[0]["status"] == "miss"
    assert counted(moto_server) == {"LIST": 2}
    moto_server.forget()
    assert processes.run(step("warm", timeout=4.0, **there))[0]["status"] == "miss"
    assert counted(moto_server) == {"LIST": 1}


def test_explanation_reads_one_manifest(
    moto_server: MotoServer, processes: Processes, there: dict[str, object]
) -> None:
    """To name the facts that differ, one manifest of the other environment is read."""
    processes.run(
        step("run", model="doubling"), step("publish", **there), environment={"ATEN_CPU_CAPABILITY": "default"}
    )
    moto_server.forget()
    warmed = processes.run(step("warm", **there))[0]
    assert "cpu_capability is" in warmed["reason"]
    assert counted(moto_server) == {"LIST": 2, "GET bundles": 1}


def test_explaining_reads_manifests_and_explain_data(
    moto_server: MotoServer, processes: Processes, there: dict[str, object]
) -> None:
    """An explanation lists once and reads each manifest and its explain data, and no artifact."""
    processes.run(step("run", model="doubling"), step("publish", **there))
    moto_server.forget()
    *_, explained = processes.run(step("run", model="cosine"), step("explain", **there))
    assert explained["status"] == "graphs"
    assert counted(moto_server) == {"LIST": 1, "GET bundles": 1, "GET chunks": 1}
