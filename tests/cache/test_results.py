"""A result says how a call ended, in one word, as a truth value and for people."""

from dataclasses import FrozenInstanceError

import pytest

from megacache._cache import PublishResult, PublishStatus, WarmResult, WarmStatus
from megacache.errors import AccessError

WARM_TRUTH = {
    WarmStatus.LOADED: True,
    WarmStatus.MISS: False,
    WarmStatus.DISABLED: False,
    WarmStatus.UNTRUSTED: False,
    WarmStatus.UNAVAILABLE: False,
}
PUBLISH_TRUTH = {
    PublishStatus.PUBLISHED: True,
    PublishStatus.UNCHANGED: True,
    PublishStatus.COVERED: True,
    PublishStatus.DUPLICATE: True,
    PublishStatus.EMPTY: False,
    PublishStatus.TOO_LARGE: False,
    PublishStatus.READ_ONLY: False,
    PublishStatus.DISABLED: False,
    PublishStatus.UNAVAILABLE: False,
}
URL = "memory://somewhere"


@pytest.mark.parametrize("status", WarmStatus)
def test_warm_result_is_true_if_something_was_loaded(status: WarmStatus) -> None:
    """Only `loaded` is true."""
    assert bool(WarmResult(url=URL, status=status)) is WARM_TRUTH[status]


@pytest.mark.parametrize("status", PublishStatus)
def test_publish_result_is_true_if_all_is_in_the_store(status: PublishStatus) -> None:
    """True are the statuses after which the store holds all that this process compiled."""
    assert bool(PublishResult(url=URL, status=status)) is PUBLISH_TRUTH[status]


@pytest.mark.parametrize("status", [*WarmStatus, *PublishStatus])
def test_status_is_its_word(status: WarmStatus | PublishStatus) -> None:
    """A status compares, prints and formats as its word, so that scripts and logs need no import."""
    assert str(status) == f"{status}" == status.name.lower()
    assert status == status.name.lower()


def test_fault_is_raised_on_request() -> None:
    """`raise_for_status` raises the very fault that decided the status."""
    fault = AccessError("refused")
    for result in (
        WarmResult(url=URL, status=WarmStatus.UNAVAILABLE, error=fault),
        PublishResult(url=URL, status=PublishStatus.READ_ONLY, error=fault),
    ):
        with pytest.raises(AccessError) as caught:
            result.raise_for_status()
        assert caught.value is fault


@pytest.mark.parametrize("status", [*WarmStatus, *PublishStatus])
def test_outcome_is_not_raised(status: WarmStatus | PublishStatus) -> None:
    """Without a fault, `raise_for_status` gives the result back, so that calls can be chained."""
    result: WarmResult | PublishResult
    if isinstance(status, WarmStatus):
        result = WarmResult(url=URL, status=status)
    else:
        result = PublishResult(url=URL, status=status)
    assert result.raise_for_status() is result


@pytest.mark.parametrize(
    ("result", "text"),
    [
        (WarmResult(url=URL, status=WarmStatus.MISS), "miss"),
        (WarmResult(url=URL, status=WarmStatus.MISS, reason="nothing is published"), "miss: nothing is published"),
        (
            WarmResult(
                url=URL,
                status=WarmStatus.LOADED,
                artifacts={"inductor": 2, "aot_autograd": 1},
                bytes_stored=10,
                bytes_raw=70,
            ),
            "loaded: 1 aot_autograd 2 inductor, 10 bytes stored, 70 raw",
        ),
        (PublishResult(url=URL, status=PublishStatus.UNCHANGED), "unchanged"),
        (
            PublishResult(url=URL, status=PublishStatus.PUBLISHED, artifacts={"pgo": 1}, bytes_stored=3, bytes_raw=4),
            "published: 1 pgo, 3 bytes stored, 4 raw",
        ),
    ],
)
def test_result_is_shown_in_one_line(result: WarmResult | PublishResult, text: str) -> None:
    """As text, a result is its status with what was moved, else with the reason."""
    assert str(result) == text


def test_result_cannot_be_changed() -> None:
    """A result is a value."""
    with pytest.raises(FrozenInstanceError):
        WarmResult(url=URL, status=WarmStatus.MISS).status = WarmStatus.LOADED  # type: ignore[misc]


def test_results_do_not_share_their_defaults() -> None:
    """What one result counts does not show up in another."""
    one, other = WarmResult(url=URL, status=WarmStatus.MISS), WarmResult(url=URL, status=WarmStatus.MISS)
    assert one.artifacts is not other.artifacts
    assert one.seconds is not other.seconds
