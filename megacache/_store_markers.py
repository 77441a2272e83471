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
from dataclasses import dataclass

from megacache._deadline import Deadline
from megacache._digest import Digest
from megacache._document import Node, pack
from megacache._layout import EnvironmentPrefix, Start
from megacache._markers import SUSPICION_SECONDS, Markers, Suspect
from megacache._parallel import unordered
from megacache._store import Store
from megacache.errors import FormatError, MegacacheError

_log = logging.getLogger("megacache")

PATIENCE_SECONDS = 3.0
"""The longest that loading or compiling waits for a marker to be put up, and the end of a process for its removal."""
FORGOTTEN_SECONDS = 86_400
"""After so long any instance clears away the marker of another, which may never start again."""
_INSTANCE_DIGITS = 16
_MAX_SIZE = 1 << 20
_MOST = 100
"""Markers that one start reads, and that it clears away."""


class StoreMarkers:
    """The markers of one instance for one environment, that of this process among them."""

    def __init__(self, store: Store, prefix: EnvironmentPrefix, local: Markers, instance: str) -> None:
        """Name an instance; processes in it whose cache folders differ are not taken for each other."""
        self._store = store
        self._prefix = prefix
        self._local = local
        self._instance = Digest.of(f"{instance}\0{local.folder}".encode()).hex[:_INSTANCE_DIGITS]
        self._left: Sequence[_Left] = ()
        self._old: Sequence[Start] = ()
        self._own: Start | None = None
        self._failed = False

    def suspects(self, listed: Mapping[Start, int]) -> Mapping[str, Suspect]:
        """Give what processes of this instance may have died of, by bundle id, and note what another death would tell.

        `listed` has the size of each marker in the store. One that lies beside the local cache as well is judged there.
        """
        now = time.time()
        # A process that survives takes its marker down here, then there: what is gone there by now cannot be read here.
        there = self._local.names()
        mine = sorted((one for one in listed if one.instance == self._instance), key=lambda one: one.began)
        recent = [one for one in mine if _age(one, now) < SUSPICION_SECONDS and one.marker not in there]
        self._left = tuple(self._read({one: listed[one] for one in recent[-_MOST:]}))
        forgotten = (one for one in listed if one.instance != self._instance and _age(one, now) >= FORGOTTEN_SECONDS)
        self._old = [*(one for one in mine if _age(one, now) >= SUSPICION_SECONDS), *forgotten][:_MOST]
        accused = {bundle for one in self._left for bundle in one.accused}
        return {bundle: Suspect(bundle=bundle, artifacts=(), files=()) for bundle in accused}

    def put_up(self, marker: str, loads: Collection[str], deadline: Deadline) -> None:
        """Put up the marker of this process under the name of the one beside the local cache, or log why that failed.

        It is tried no more then. Where a marker could not be taken down again it is not put up, for it would accuse a
        process that went well.
        """
        if self._failed:
            return
        now = time.time()
        start = Start(instance=self._instance, marker=marker, began=int(now))
        doubted = [one.loads for one in self._left if _age(one.start, now) < SUSPICION_SECONDS]
        again = frozenset().union(*doubted).intersection(loads)
        document = pack({"loads": sorted(loads), "again": sorted(again)})
        key, store = self._prefix.start(start), self._store.within(deadline.sooner(PATIENCE_SECONDS))
        try:
            store.delete(key)
            self._own = start
            store.create(key, document)
        except MegacacheError as error:
            self._failed = True
            _log.warning("no start marker in the store: url=%s error=%s", store.url, error)

    def take_down(self) -> None:
        """Take down the marker of this process, which has survived, and those that are too old to tell anything."""
        starts = [*([self._own] if self._own else ()), *self._old]
        self._own, self._old = None, ()
        store = self._store.within(Deadline.after(PATIENCE_SECONDS))
        keys = [self._prefix.start(start) for start in starts]
        with suppress(MegacacheError):
            for _ in unordered(store.delete, keys, deadline=store.deadline, doing="taking start markers down"):
                pass

    def _read(self, sizes: Mapping[Start, int]) -> Iterator["_Left"]:
        """Read markers; one that cannot be read accuses nobody."""
        store = self._store.within(self._store.deadline.sooner(PATIENCE_SECONDS))

        def read(start: Start) -> _Left:
            if sizes[start] > _MAX_SIZE:
                raise FormatError("it is too large", path=start.name)
            loads, again = parse_marker(store.read(self._prefix.start(start), size=sizes[start]))
            return _Left(start=start, loads=loads, accused=loads & again)

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
