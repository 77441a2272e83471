"""What this process knows from one call to the next; a test forgets all of it in one call.

Each module keeps its own share in a collection that it makes with `kept`. Hooks that were set in PyTorch, and the
libraries that it holds, are not kept here: they last as long as PyTorch does.
"""

from collections.abc import Callable
from typing import Protocol, TypeVar


class _Collection(Protocol):
    def clear(self) -> None: ...


Collection = TypeVar("Collection", bound=_Collection)

_all: list[tuple[_Collection, Callable[[], None]]] = []


def kept(collection: Collection, *, release: Callable[[], None] = lambda: None) -> Collection:
    """Keep a collection for as long as the process lives; `release` gives back what its items hold."""
    _all.append((collection, release))
    return collection


def forget() -> None:
    """Empty every collection: the process goes on as if no call had been made."""
    for collection, release in _all:
        release()
        collection.clear()
