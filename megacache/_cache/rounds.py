"""What one listing of a store leads to: bundles, and their download, which goes on until they are loaded."""

from collections import deque
from collections.abc import Collection, Generator, Sequence
from contextlib import closing

from megacache._bundle import Manifest
from megacache._catalog import Delivery


class Round:
    """The bundles of one listing that are to be loaded, and those that were withdrawn."""

    def __init__(
        self, deliveries: Generator[Delivery], *, manifests: Sequence[Manifest], withdrawn: Sequence[Manifest]
    ) -> None:
        self.deliveries = deliveries
        self.manifests = manifests
        """Of what is to be loaded."""
        self.withdrawn = withdrawn
        """Of what earlier starts may have loaded here."""

    def hold(self) -> Collection[Delivery]:
        """Take the whole download into memory, which each delivery leaves as it is loaded."""
        held = deque[Delivery]()
        deliveries, self.deliveries = self.deliveries, _emptied(held)
        with closing(deliveries):
            held.extend(deliveries)  # one after the other: what has come in time is kept if the rest has not
        return held

    def keep(self, manifests: Sequence[Manifest]) -> None:
        """Let only these of the bundles that are held be loaded."""
        kept = {one.bundle for one in manifests}
        self.manifests = manifests
        self.deliveries = _emptied(deque(one for one in self.deliveries if one.manifest.bundle in kept))


def started(deliveries: Generator[Delivery]) -> Generator[Delivery]:
    """Let a download begin, and wait for the first of its deliveries; give all of them."""
    first = next(deliveries, None)

    def all_of_them() -> Generator[Delivery]:
        with closing(deliveries):
            if first is not None:
                yield first
            yield from deliveries

    return all_of_them()


def _emptied(held: deque[Delivery]) -> Generator[Delivery]:
    while held:
        yield held.popleft()
