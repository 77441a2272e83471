"""Markers in a store, for an instance that loses its disk when it dies.

An instance is a container, or a place in a fleet, that keeps one name over its restarts and shares it with no other
that runs at the same time. What it has left in the store, and not beside its local cache, is therefore of a process
that is gone, and its disk with it. Nobody can tell what such a process died of; so, as a blind marker on a disk does,
one accuses what another process had loaded as well that died before this one began.
"""

import logging
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

from megacache._bundle import Digest, EnvironmentPrefix, Node, Start, pack
from megacache._cache.crash_guard.markers import SUSPICION_SECONDS, Markers, Suspect
from megacache._runtime import Deadline, unordered
from megacache._store import Store
from megacache.errors import AccessError, FormatError, MegacacheError

_log = logging.getLogger("megacache")

PATIENCE_SECONDS = 3.0
"""The longest that loading or compiling waits for a marker to be put up, and the end of a process for its removal."""
_INSTANCE_DIGITS = 16
_MAX_SIZE = 1 << 20
_MOST = 100
"""Markers that one start reads, and that it clears away."""


class StoreMarkers:
    """The markers of one instance for one environment, those of this process among them."""

    def __init__(self, store: Store, prefix: EnvironmentPrefix, local: Markers, instance: str) -> None:
        """Name an instance; processes in it whose cache folders differ are not taken for each other."""
        self._store = store
        self._prefix = prefix
        self._local = local
        self._instance = Digest.of(f"{instance}\0{local.folder}".encode()).hex[:_INSTANCE_DIGITS]
        self._left: Sequence[_Left] = ()
        self._old: Sequence[Start] = ()
        self._put: dict[Start, bool] = {}
        self._given_up = False

    def suspects(self, listed: Mapping[Start, int]) -> Mapping[str, Suspect]:
        """Give what processes of this instance may have died of, by bundle id, and note what another death would tell.

        `listed` has the size of each marker in the store. One that lies beside the local cache as well is judged there.
        """
        now = time.time()
        survived = {(one.instance, one.marker) for one in listed if one.survived}
        # A process that survives takes its marker down in the store before it does here: if it has gone from here for
        # that reason by now, it cannot be read there any more, unless it could not be deleted.
        try:
            local = self._local.names()
        except OSError:  # who lives here cannot be told
            return {}
        recent = [
            one
            for one in sorted(listed, key=lambda one: one.began)
            if one.instance == self._instance
            and _age(one, now) < SUSPICION_SECONDS
            and one.marker not in local
            and (one.instance, one.marker) not in survived
        ]
        self._left = tuple(self._read({one: listed[one] for one in recent[-_MOST:]}))
        self._old = [one for one in listed if _age(one, now) >= SUSPICION_SECONDS][:_MOST]
        accused = {bundle for one in self._left for bundle in one.accused}
        return {bundle: Suspect(bundle=bundle, artifacts=(), files=()) for bundle in accused}

    def start(self, marker: str) -> Start:
        """Name a marker of this process after the one beside the local cache."""
        return Start(instance=self._instance, marker=marker, began=int(time.time()))

    def put_up(self, start: Start, loads: Collection[str], deadline: Deadline) -> bool:
        """Put a marker up, or log why that failed; return False if another try may succeed, given more time."""
        hurried = deadline.remaining() < PATIENCE_SECONDS / 2
        if self._given_up or not deadline.remaining():
            return self._given_up
        doubted = [one.loads for one in self._left if _age(one.start, start.began) < SUSPICION_SECONDS]
        again = frozenset().union(*doubted).intersection(loads)
        document = pack({"loads": sorted(loads), "again": sorted(again)})
        self._put[start] = False
        try:
            self._store.within(deadline).create(self._prefix.start(start), document)
        except MegacacheError as error:
            refused = isinstance(error, AccessError)
            if refused:
                del self._put[start]
            self._given_up = refused or not hurried
            _log.warning("no start marker in the store: url=%s error=%s", self._store.url, error)
            return self._given_up
        self._put[start] = True
        return True

    def take_down(self, start: Start, deadline: Deadline) -> bool:
        """Take a marker of this process down, which has survived; return False, and log why, if it may still accuse.

        Where it cannot be deleted, or may still be on its way, another object beside it says so.
        """
        written = self._put.get(start)
        if written is None:  # it was never put up, or another thread was faster
            return True
        store, sooner = self._store.within(deadline), deadline.sooner(deadline.remaining() / 2)
        try:
            if not (written and self._delete(store.within(sooner), start)):
                store.create(self._prefix.start(replace(start, survived=True)), b"\n")
        except MegacacheError as error:
            _log.warning("a start marker may be left in the store: url=%s error=%s", store.url, error)
            return False
        self._put.pop(start, None)
        return True

    def clear_old(self, deadline: Deadline) -> None:
        """Clear away markers that are too old to tell anything, of whichever instance."""
        old, self._old = self._old, ()
        store = self._store.within(deadline)
        with suppress(MegacacheError):
            for _ in unordered(
                store.delete, tuple(map(self._prefix.start, old)), deadline=deadline, doing="clearing old start markers"
            ):
                pass

    def _delete(self, store: Store, start: Start) -> bool:
        with suppress(MegacacheError):
            store.delete(self._prefix.start(start))
            return True
        return False

    def _read(self, sizes: Mapping[Start, int]) -> Iterator["_Left"]:
        """Read markers; one that cannot be read accuses nobody."""
        store = self._store.within(self._store.deadline.sooner(PATIENCE_SECONDS))

        def read(start: Start) -> _Left:
            if sizes[start] > _MAX_SIZE:
                raise FormatError("it is too large", path=start.name)
            loads, again = parse_marker(store.read(self._prefix.start(start), size=sizes[start]))
            return _Left(start=start, loads=loads, accused=again)

        with suppress(MegacacheError):
            for done in unordered(read, tuple(sizes), deadline=store.deadline, doing="reading start markers"):
                if done.value is not None:
                    yield done.value


def parse_marker(data: bytes) -> tuple[frozenset[str], frozenset[str]]:
    """Read a marker: the ids of the bundles that a process had loaded, and of those that another had died with before.

    Raises `FormatError`.
    """
    marker = Node.unpack(data, "start marker")
    loads, again = (frozenset(item.text() for item in marker.field(name).items()) for name in ("loads", "again"))
    return loads, again


def _age(start: Start, now: float) -> float:
    """Tell the age of a marker in seconds; one from the future is no younger than one from the past."""
    return abs(now - start.began)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Left:
    """What a process has left that is gone."""

    start: Start
    loads: frozenset[str]
    """Ids of the bundles that it had loaded."""
    accused: frozenset[str]
    """Those of them that another had loaded as well that died before it began."""
