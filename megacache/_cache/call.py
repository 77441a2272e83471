"""One call of a verb: its cache, its settings and its deadline."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Self, TypeVar

from megacache import _compiler
from megacache._cache.session import Session, session
from megacache._catalog import Places
from megacache._runtime import Deadline, ProgressCallback, Stopwatch, call, quiet
from megacache._settings import Settings, find_cache_folder
from megacache._store import Store, redacted
from megacache._trust import Keys, Signing, TrustPolicy

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """What all steps of a verb share."""

    url: str = field(repr=False)
    """The cache itself."""
    nearer: tuple[str, ...] = field(default=(), repr=False)
    """Places that hold copies of it, the nearest first."""
    storage_options: Mapping[str, Any] | None = field(default=None, repr=False)
    settings: Settings
    keys: Keys = field(default_factory=Keys)
    deadline: Deadline
    clock: Stopwatch = field(default_factory=Stopwatch)
    progress: ProgressCallback = field(default_factory=lambda: quiet(None))

    @property
    def shown(self) -> str:
        """The URLs without what is secret in them."""
        return redacted(" ".join([*self.nearer, self.url]))

    def off(self) -> str:
        """Say what switches caching off; empty if it is on."""
        if self.settings.disabled:
            return "MEGACACHE_DISABLE is set"
        # Before PyTorch's compiler is imported, which looks into that folder, however long it takes.
        self.on_disk(find_cache_folder)
        return _compiler.switched_off()

    def session(self) -> Session:
        """Give what this process knows of the cache."""
        return session(" ".join([*self.nearer, self.url]), self.storage_options)

    def restarted(self) -> Self:
        """Give the same call with all its time: what came before did not wait for the store."""
        return replace(self, deadline=self.deadline.restarted())

    def until(self, deadline: Deadline) -> Self:
        """Give the same call with less time."""
        return replace(self, deadline=deadline)

    def open_store(self) -> Store:
        """Open the store."""
        with self.clock.stage("open"):
            return Store.open(self.url, storage_options=self.storage_options, deadline=self.deadline)

    def open_places(self) -> Places:
        """Open the store, and the nearer places."""
        if not self.nearer:
            return Places.only(self.open_store())
        with self.clock.stage("open"):
            return Places.open([*self.nearer, self.url], storage_options=self.storage_options, deadline=self.deadline)

    def policy(self) -> TrustPolicy | None:
        """Read whom to trust; None is anyone."""
        return self._keys(lambda: self.keys.policy(self.settings), "reading the trusted keys")

    def signing(self) -> Signing:
        """Load what a writer signs with; a key service may have to be asked."""
        return self._keys(lambda: self.keys.signing(self.settings), "loading the signing key")

    def on_disk(self, step: Callable[[], _Value]) -> _Value:
        """Take a step in PyTorch's cache folder, which may lie on a mount that hangs."""
        return call(step, deadline=self.deadline, doing=_compiler.FOLDER)

    def _keys(self, load: Callable[[], _Value], doing: str) -> _Value:
        # A disk that holds keys may hang as a service may, as on a network.
        with self.clock.stage("keys"):
            return call(load, deadline=self.deadline, doing=doing)
