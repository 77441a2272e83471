"""What megacache says of a GPU."""

from typing import Any

import pytest

from tests.cuda.journeys import Journey, trips

pytestmark = trips("pointwise")


@pytest.fixture
def environment(journey: Journey) -> dict[str, Any]:
    """Give what the first process said of its environment."""
    told: dict[str, Any] = journey.cold.told["environment"]
    assert "raised" not in told, told["raised"]
    return told


def test_facts_name_the_gpu(environment: dict[str, Any]) -> None:
    """The facts that enter the fingerprint hold the GPU's kind, name and capability, and CUDA's version."""
    facts = environment["facts"]
    assert (facts["device_type"], facts["device_name"]) == ("cuda", "NVIDIA H100 80GB HBM3")
    assert facts["device_capability"] == "9.0"
    assert facts["toolkit"].startswith("13.")


def test_every_fact_is_read(environment: dict[str, Any]) -> None:
    """Nothing that is asked of a CUDA build of PyTorch is without an answer."""
    assert environment["unread"] == {}
    assert environment["recorded"]["driver"] == "13.0"


def test_triton_is_told_by_a_digest(environment: dict[str, Any]) -> None:
    """Triton's key, a row of digests of thousands of characters, is itself told by a digest."""
    assert 0 < len(environment["facts"]["triton"]) <= len("sha256:") + 64


def test_environments_of_two_hosts_are_equal(journey: Journey, environment: dict[str, Any]) -> None:
    """Two hosts with the same GPU and software have the same facts, whatever folders they have."""
    assert journey.warm.told["environment"] == environment
