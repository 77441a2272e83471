"""What this process knows of each cache it used, and what its warm starts cost."""

import atexit
import logging
import os
import threading
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from megacache import _compiler
from megacache._bundle import REPLACED_KINDS, ArtifactRef, FileRef
from megacache._cache.receipt import GRAPH_KINDS, Receipt
from megacache._cache.results import WarmResult
from megacache._catalog import Lease
from megacache._compiler import roots as known_roots
from megacache._runtime import Deadline, kept
from megacache.errors import AccessError, MegacacheError, UnavailableError

_log = logging.getLogger("megacache")


class Session:
    """What this process loaded from one cache, or knows to be there."""

    def __init__(self) -> None:
        # Reentrant: the handler of a signal may publish in a thread that it has interrupted, and cannot wait for.
        self._lock = threading.RLock()
        self._depth = 0
        # A set is replaced, never changed: such a handler may interrupt whoever goes through one.
        self._artifacts: frozenset[ArtifactRef] = frozenset()
        self._files: frozenset[tuple[str, str]] = frozenset()
        self._loaded: frozenset[ArtifactRef] = frozenset()
        self._bundles: frozenset[str] = frozenset()
        self._written: frozenset[str] = frozenset()
        self._unusable: frozenset[str] = frozenset()
        self._restored: frozenset[tuple[str, str]] = frozenset()
        self._folder: str | None = None
        self._lease: Lease | None = None

    @property
    def files(self) -> AbstractSet[tuple[str, str]]:
        """Roots and paths of the compiled files that are in the store for processors and compilers like these."""
        return self._files

    @property
    def restored(self) -> AbstractSet[tuple[str, str]]:
        """Roots and paths of the compiled files that were put in place."""
        return self._restored

    @property
    def loaded(self) -> AbstractSet[ArtifactRef]:
        """Artifacts that were loaded."""
        return self._loaded

    @property
    def bundles(self) -> AbstractSet[str]:
        """Ids of the bundles that hold what is known: the parents of what is published next."""
        return self._bundles

    @property
    def written(self) -> AbstractSet[str]:
        """Ids of the bundles that this process has written itself."""
        return self._written

    @property
    def unusable(self) -> AbstractSet[str]:
        """Ids of bundles that are damaged or withdrawn: they cover nothing."""
        return self._unusable

    @property
    def folder(self) -> str | None:
        """PyTorch's cache folder when this process warmed."""
        return self._folder

    @property
    def lease(self) -> Lease | None:
        """The lease by which others wait for what this process compiles, or its parent before a fork."""
        return self._lease

    @property
    def keeps_others_waiting(self) -> bool:
        """Whether this process holds a lease by which others wait for what it compiles."""
        return self._lease is not None and not self._lease.over and not self._lease.inherited

    @contextmanager
    def publishing(self, deadline: Deadline) -> Iterator[bool]:
        """Let one thread publish at a time, so that each sees what the one before it has published.

        Tell whether this thread is in the middle of another publication, which a signal has interrupted.
        """
        if not self._lock.acquire(timeout=max(deadline.remaining(), 0.001)):
            raise deadline.missed("waiting for another publication of this process")
        self._depth += 1
        try:
            yield self._depth > 1
        finally:
            self._depth -= 1
            self._lock.release()

    def hold(self, lease: Lease) -> None:
        """Keep others waiting until this process has published, or ends."""
        self._lease = lease
        # Not sooner: what is published at the end of the program comes first.
        atexit.register(lease.release)

    def release(self) -> None:
        """Keep others waiting no longer."""
        if self._lease is not None:
            self._lease.release()

    def news(self, recorded: Iterable[ArtifactRef]) -> set[ArtifactRef]:
        """Give what is not known to be in the store; empty if that is only a newer state of what is."""
        # A profile changes with every run: it is published with new graphs, and not for its own sake.
        new = set(recorded) - self._artifacts
        keys = {(ref.kind, ref.key) for ref in self._artifacts if ref.kind in REPLACED_KINDS}
        return new if any((ref.kind, ref.key) not in keys for ref in new) else set()

    def begin(self, folder: str) -> None:
        """Remember the cache folder of PyTorch that is filled."""
        self._folder = folder

    def load(self, bundle: str, artifacts: Collection[ArtifactRef], files: Collection[FileRef]) -> None:
        """Remember what was loaded from a bundle."""
        self._loaded |= frozenset(artifacts)
        self._restored |= {(file.root, file.path) for file in files}
        self.cover(artifacts, [bundle], files)

    def cover(self, artifacts: Iterable[ArtifactRef], bundles: Iterable[str], files: Iterable[FileRef] = ()) -> None:
        """Remember that artifacts and files are in the store, and the bundles that make it so."""
        self._artifacts |= frozenset(artifacts)
        self._files |= {(file.root, file.path) for file in files}
        self._bundles |= frozenset(bundles)

    def disown(self, bundle: str, files: Iterable[tuple[str, str]]) -> None:
        """Forget the files of a bundle that could not be used: those that take their place are to be published."""
        if bundle in self._bundles:
            self.rule_out([bundle])
            self._files -= frozenset(files)

    def write(self, bundle: str) -> None:
        """Remember a bundle that this process has written."""
        self._written |= {bundle}

    def rule_out(self, bundles: Iterable[str]) -> None:
        """Remember bundles that are not to be used."""
        self._unusable |= frozenset(bundles)

    def give_up(self, bundle: str, fault: MegacacheError | None) -> None:
        """Remember a bundle that cannot be used, unless it was the store that failed."""
        if not isinstance(fault, (UnavailableError, AccessError)):
            self._unusable |= {bundle}

    def unlock(self) -> None:
        """Forget a lock that a thread of the parent process held when this one was forked."""
        self._lock, self._depth = threading.RLock(), 0


# Credentials are not among them, for they may be renewed while the process runs.
_ENDPOINTS = frozenset({"account_name", "endpoint", "endpoint_url", "host", "port"})
_sessions: dict[tuple[str, ...], Session] = kept({})


def session(url: str, storage_options: Mapping[str, Any] | None) -> Session:
    """Give the one session of this process for a cache: the same URL at another endpoint is another cache."""
    return _sessions.setdefault((url, *_endpoints(storage_options or {})), Session())


def sessions() -> tuple[Session, ...]:
    """Give what this process knows of every cache."""
    return tuple(_sessions.values())


def release_leases() -> None:
    """Let nobody wait any more for what this process compiles: it has published, or will not."""
    for known in tuple(_sessions.values()):
        known.release()


def loaded_artifacts() -> set[ArtifactRef]:
    """Give all that this process has loaded, from any cache."""
    return set().union(*(known.loaded for known in tuple(_sessions.values())))


def _endpoints(options: Mapping[str, Any]) -> Iterator[str]:
    for name, value in sorted(options.items()):
        if isinstance(value, Mapping):
            yield from _endpoints(value)
        elif name in _ENDPOINTS:
            yield f"{name}={value}"


def _unlock_all() -> None:
    for known in _sessions.values():
        known.unlock()


os.register_at_fork(after_in_child=_unlock_all)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cost:
    """What one warm start took."""

    seconds: float
    files: int
    bytes_stored: int
    bytes_raw: int
    sources: Mapping[str, int]


# Appending needs no lock, which a fork could leave locked; a forked child keeps this as it keeps PyTorch's counters.
_costs: list[_Cost] = kept([])


def note_cost(result: WarmResult) -> None:
    """Note what a warm start cost, however it ended."""
    _costs.append(
        _Cost(
            seconds=result.seconds["total"],
            files=result.files,
            bytes_stored=result.bytes_stored,
            bytes_raw=result.bytes_raw,
            sources=result.sources,
        )
    )


def take_receipt() -> Receipt:
    """Set what the warm starts cost against what PyTorch did with it; nothing is asked of a store, or imported."""
    costs, loaded, activity = tuple(_costs), loaded_artifacts(), _compiler.activity()
    return Receipt(
        warm_starts=len(costs),
        seconds_warming=sum(cost.seconds for cost in costs),
        bytes_stored=sum(cost.bytes_stored for cost in costs),
        bytes_raw=sum(cost.bytes_raw for cost in costs),
        sources=dict(sum((Counter(cost.sources) for cost in costs), Counter())),
        files=sum(cost.files for cost in costs),
        loaded=dict(Counter(ref.kind for ref in loaded)),
        unused=_unused(loaded, activity),
        refused=activity.refused,
        inductor=activity.inductor,
        aot_autograd=activity.aot_autograd,
        cpp_kernels=activity.cpp_kernels,
        cpp_runs=activity.cpp_runs,
        cpp_seconds=activity.cpp_seconds,
        triton_kernels=activity.triton_kernels,
        seconds_saved=activity.seconds_saved,
        **(_models() if any(cost.files for cost in costs) else {}),
        ranks_agree=activity.ranks_agree,
        counters_cleared=activity.counters_cleared,
    )


def _models() -> Mapping[str, Any]:
    """Count the compiled models of programs that keep their own."""
    restored = frozenset[tuple[str, str]]().union(*(known.restored for known in sessions()))
    told = {
        root.name: models
        for root in known_roots.registered()
        if (models := _models_of(root, [path for name, path in restored if name == root.name])) is not None
    }
    if not told:
        return {}
    return {
        "models_of": ", ".join(told),
        "models_restored": sum(models.restored for models in told.values()),
        "models_loaded": sum(models.loaded for models in told.values()),
    }


def _models_of(root: known_roots.Root, paths: Collection[str]) -> known_roots.Models | None:
    try:
        return None if root.models is None else root.models(paths)
    except Exception:  # noqa: BLE001 - a program that counts in another way costs no publication
        _log.debug("models not counted: root=%s", root.name, exc_info=True)
        return None


def _unused(loaded: Collection[ArtifactRef], activity: _compiler.Activity) -> Mapping[str, int] | None:
    """Count what PyTorch has not recorded, as it does on a hit."""
    # Graphs that hit and left no record at all were compiled where the recorder does not see them: nothing is known.
    hits = [lookups.hit for lookups in (activity.inductor, activity.aot_autograd) if lookups is not None]
    if activity.recorded is None or (any(hits) and not activity.recorded):
        return None
    graphs = [ref for ref in loaded if ref.kind in GRAPH_KINDS]
    # Sizes stand for contents, whose digests would take a second for a gigabyte: of two variants of one key and one
    # size, both count as used if one of them is.
    exact = {ref for ref in graphs if (ref.kind, ref.key, ref.size) in activity.recorded}
    others = {(kind, key) for kind, key, _ in activity.recorded} - {(ref.kind, ref.key) for ref in exact}
    # A key that only hit is used, even if what PyTorch found under it first was compiled here.
    hit = others & {(ref.kind, ref.key) for ref in graphs if _never_missed(ref, activity)}
    return dict(Counter(ref.kind for ref in graphs if ref not in exact and (ref.kind, ref.key) not in hit))


def _never_missed(ref: ArtifactRef, activity: _compiler.Activity) -> bool:
    lookups = activity.inductor if ref.kind == "inductor" else activity.aot_autograd
    if lookups is None or not lookups.hit or (ref.kind, ref.key) in activity.missed:
        return False
    # A miss that was counted and not observed may be one of this graph.
    return not lookups.missed or any(kind == ref.kind for kind, _ in activity.missed)
