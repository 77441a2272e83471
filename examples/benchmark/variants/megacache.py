"""megacache, in a store on local disk or S3."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from examples.benchmark.variants.variant import Stored, Variant


class Megacache(Variant):
    """Warm from local disk."""

    name = "megacache"
    told = "`megacache.warm` from a store on local disk"

    def import_package(self) -> None:
        """Import it."""
        import megacache  # noqa: F401

    @contextmanager
    def prepared(self, stored: Stored) -> Iterator[None]:
        """Publish at the end."""
        import megacache

        yield
        url, options = self.place(stored)
        published = megacache.publish(url, storage_options=options, strict=True)
        if published.status is not megacache.PublishStatus.PUBLISHED:
            raise RuntimeError(f"not published: {published}")

    @contextmanager
    def started(self, stored: Stored) -> Iterator[None]:
        """Warm."""
        import megacache

        url, options = self.place(stored)
        warmed = megacache.warm(url, storage_options=options, strict=True)
        if not warmed:
            raise RuntimeError(f"not loaded: {warmed}")
        yield

    def place(self, stored: Stored) -> tuple[str, Mapping[str, Any]]:
        """Give the URL of its store and what leads there."""
        return stored.path("megacache").as_uri(), {}


class MegacacheS3(Megacache):
    """Warm from S3."""

    name = "megacache-s3"
    told = "`megacache.warm` from S3, which is moto on loopback"
    packages = ("s3fs", "moto", "flask")  # the last is of `moto[server]`

    def place(self, stored: Stored) -> tuple[str, Mapping[str, Any]]:
        """Give the URL of its prefix and the endpoint."""
        return stored.s3_url, stored.s3_options
