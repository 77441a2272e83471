"""What object stores charge, by the list prices that they publish.

Both charge for requests by class, and for what is kept by the month; what is read from the same region is free.
"""

from dataclasses import dataclass

_DAYS = 30
_GB = 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """The list price of a store, in US dollars."""

    store: str
    source: str
    writes: float
    """For 1,000 writes or listings."""
    reads: float
    """For 1,000 reads."""
    month: float
    """For a GB that is kept for a month."""

    def day(self, *, writes: float, reads: float, kept: float) -> float:
        """Work out what a day costs, with so many bytes kept."""
        requests = writes * self.writes / 1_000 + reads * self.reads / 1_000
        return requests + kept / _GB * self.month / _DAYS


AS_OF = "2026-11-27"
"""When copies of the pages were read; the prices had not changed for years."""
PRICES = (
    Price(
        store="S3 Standard, us-east-1",
        source="https://aws.amazon.com/s3/pricing/",
        writes=0.005,
        reads=0.0004,
        month=0.023,
    ),
    Price(
        store="GCS Standard, us-central1",
        source="https://cloud.google.com/storage/pricing",
        writes=0.005,
        reads=0.0004,
        month=0.020,
    ),
)
