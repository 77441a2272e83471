"""The places of one cache, the nearest first: the last one is the cache, and those before it hold copies of it.

A nearer place only saves time. Whatever is wrong with one, the next is asked, and it is not asked again.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self

from megacache._runtime import Deadline
from megacache._store import Store, redacted
from megacache.errors import BundleError, MegacacheError, MissingError, SettingsError

_SMALL_SECONDS = 5.0
"""How long a nearer place has for what is small: one that takes longer is not near."""
_LARGE_SHARE = 0.25
"""Which part of the time that is left a nearer place has for one chunk, while others are read at the same time."""
_LAST_SHARE = 0.5
"""Which part the last place has to answer at all: enough stays to load what the nearer ones hold."""


class Place:
    """One of the places."""

    def __init__(self, url: str, *, last: bool, alone: bool) -> None:
        self.url = redacted(url)
        """Fit to be shown."""
        self.last = last
        self.alone = alone
        self.store: Store | None = None
        """None if it could not be opened."""
        self.fault: MegacacheError | None = None
        """Why it is not asked any more."""
        self.damaged: set[str] = set()
        """Keys of objects that were found damaged or missing there."""

    @property
    def usable(self) -> bool:
        """Whether it is asked."""
        return self.fault is None

    def for_small(self) -> Store:
        """Give the store, with the time that it has for a manifest; raise the fault for which it is not asked."""
        return self._open() if self.last else self._sooner(_LARGE_SHARE, _SMALL_SECONDS)

    def for_large(self) -> Store:
        """Give the store, with the time that it has for a chunk."""
        return self._open() if self.last else self._sooner(_LARGE_SHARE)

    def for_listing(self) -> Store:
        """Give the store, with the time that it has to list what it holds."""
        if not self.last:
            return self.for_small()
        return self._open() if self.alone else self._sooner(_LAST_SHARE)

    def _open(self) -> Store:
        if self.store is None or self.fault is not None:
            raise self.fault or MissingError(f"{self.url} is not open")
        return self.store

    def _sooner(self, share: float, most: float = math.inf) -> Store:
        store = self._open()
        return store.within(store.deadline.sooner(min(store.deadline.remaining() * share, most)))

    def blame(self, key: str, fault: MegacacheError) -> None:
        """Remember what went wrong with one object."""
        if self.last:  # which may give another
            return
        if isinstance(fault, (BundleError, MissingError)):
            self.damaged.add(key)
        else:
            self.fault = self.fault or fault


class Places:
    """All of them, the nearest first."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._places = tuple(places)

    @classmethod
    def only(cls, store: Store) -> Self:
        """Take a store that is open for all there is."""
        place = Place(store.url, last=True, alone=True)
        place.store = store
        return cls([place])

    @classmethod
    def open(cls, urls: Sequence[str], *, storage_options: Mapping[str, Any] | None, deadline: Deadline) -> Self:
        """Open the places; raise the fault of the last one if none can be opened, or if its URL is wrong.

        The options are those of the last place, and of nearer ones of the same protocol. Signatures are for the last
        one wherever they lie.
        """
        places = [Place(url, last=url == urls[-1], alone=len(urls) == 1) for url in urls]
        for place, url in reversed(tuple(zip(places, urls, strict=True))):
            options = storage_options if _protocol(url) == _protocol(urls[-1]) else None
            try:
                place.store = _opened(url, urls[-1], options, _time_to_open(deadline, place)).within(deadline)
            except MegacacheError as fault:
                if place.last and isinstance(fault, SettingsError):
                    raise
                place.fault = fault
        if not any(place.usable for place in places):
            raise places[-1].fault or MissingError("no place is open")
        return cls(places)

    def __iter__(self) -> Iterator[Place]:
        return iter(self._places)

    def __getitem__(self, number: int) -> Place:
        return self._places[number]

    def __len__(self) -> int:
        return len(self._places)

    def since(self, number: int) -> "Places":
        """Give one of them and those behind it."""
        return Places(self._places[number:])

    @property
    def store(self) -> Store:
        """The last one that is open."""
        return next(place.store for place in reversed(self._places) if place.store is not None)

    @property
    def url(self) -> str:
        """All of them, fit to be shown."""
        return " ".join(place.url for place in self._places)

    @property
    def warnings(self) -> tuple[str, ...]:
        """Say which places were left out, or could not be read in full."""
        return tuple(map(_told, (place for place in self._places if place.fault is not None)))

    def be_patient(self) -> None:
        """Ask the last one until the time is over, as long as it says only that it has too much to do."""
        last = self._places[-1]
        if last.store is not None:
            last.store = last.store.patient()

    def restart(self, deadline: Deadline) -> None:
        """Go on under another deadline."""
        for place in self._places:
            if place.store is not None:
                place.store = place.store.within(deadline)


def _opened(url: str, last: str, options: Mapping[str, Any] | None, deadline: Deadline) -> Store:
    store = Store.open(url, storage_options=options, deadline=deadline)
    return store if url == last else store.bound_for(last)


def _time_to_open(deadline: Deadline, place: Place) -> Deadline:
    if not place.last:
        return deadline.sooner(_SMALL_SECONDS)
    return deadline if place.alone else deadline.sooner(deadline.remaining() * _LAST_SHARE)


def _told(place: Place) -> str:
    if place.last:
        return f"{place.url} could not be read in full, and may hold more: {place.fault}"
    return f"{place.url} was left out: {place.fault}"


def _protocol(url: str) -> str:
    return url.partition("://")[0] if "://" in url else ""
