"""Fetch what fits this process from a store and hand it to PyTorch."""

from collections.abc import Collection, Iterator, Sequence
from contextlib import closing

from megacache._bundle import Environment, FileRef, Manifest, Unpacked, parents_first, refusal
from megacache._cache.cache_folder import CacheFolder
from megacache._cache.call import Call
from megacache._cache.ranks import RISK, Ranks
from megacache._cache.results import WarmResult, WarmStatus
from megacache._cache.rounds import Round, started
from megacache._cache.session import Session
from megacache._cache.tally import Tally
from megacache._cache.why_nothing import why_nothing
from megacache._catalog import (
    TOO_MANY,
    WARM_MAX_BYTES,
    Delivery,
    Listing,
    NearestCatalog,
    NodeCache,
    Order,
    Places,
    affordable,
    affordable_manifests,
    catalog_of,
    fill,
    weight,
)
from megacache._runtime import Deadline, Progress, counted, in_background
from megacache._trust import TrustPolicy
from megacache.errors import (
    CompilerError,
    MegacacheError,
    MissingError,
)

_FILL_PATIENCE = 10.0
"""Seconds that the end of a process waits for copies to nearer places; the next process goes on."""
_FAILED = (
    "a program on this host could not use what it holds; `megacache quarantine {url} {bundle}` hides it from every "
    "reader"
)
_SUSPECTED = (
    "two processes in a row ended while they loaded it or compiled with it; it is left out here for an hour, and "
    "`megacache quarantine {url} {bundle}` hides it from every reader"
)


class Warming:
    """What one warm start fetches and loads."""

    def __init__(
        self,
        call: Call,
        places: Places,
        environment: Environment,
        session: Session,
        folder: CacheFolder,
        *,
        policy: TrustPolicy | None = None,
        max_bytes: int = WARM_MAX_BYTES,
        limit: str = "max_bytes",
        ranks: Ranks | None = None,
    ) -> None:
        self._places = places
        self._store = places.store
        self._ranks = ranks
        self._environment = environment
        self._policy = policy
        self._catalog = catalog_of(places, self._environment, policy)
        self._node = NodeCache.of(call.url, call.settings)
        self._fills = not call.settings.read_only
        self._session = session
        self._clock = call.clock
        self._progress = call.progress
        self._folder = folder
        self._restoration = folder.restoration
        self._left, self._limit = max_bytes, limit
        self._tally = Tally()
        self._rounds: list[Round] = []
        self._agreed: frozenset[str] = frozenset()
        self._lists_again = False
        """Whether it may list once more as it loads: ranks list together, and once."""
        self._why_nothing = "", tuple[str, ...]()

    def fetch(self, listing: Listing | None = None, *, hold: bool = False) -> None:
        """Find what is to be loaded, and begin to download it; this may be another thread than the one that loads.

        The store is listed first, unless that has just been done. With `hold`, and among ranks, the download is over in
        the end. A chunk vanishes when bundles are compacted or deleted: another listing shows what took their place.
        """
        self._lists_again = self._ranks is None and not hold
        try:
            self._begin(listing)
            if self._ranks is not None:
                self._agree(self._ranks)
            elif hold and self._hold():
                self._begin()
                self._hold()
            if not self._tally.seen:
                with self._clock.stage("explain"):
                    self._why_nothing = why_nothing(self._store, self._environment, self._policy)
        except MegacacheError as error:
            self._stop(error)

    def load(self, deadline: Deadline) -> WarmResult:
        """Hand PyTorch all bundles that are whole and fit, in the thread that compiles; nothing begins too late."""
        if self._ranks is not None:
            # A load that has begun is not cut short: the others have begun as well.
            deadline = self._store.deadline.restarted()
        self._store = self._store.within(deadline)
        self._folder.until(deadline)
        try:
            self._load_rounds()
            if self._tally.incomplete and self._lists_again:
                self._begin()
                self._load_rounds()
        except MegacacheError as error:
            self._stop(error)
        self._folder.finish()
        return self._result()

    def fill(self) -> None:
        """Copy, in the background, what was loaded to the nearer places that lack it, and mark what has outlived it."""
        catalog, bundles = self._catalog, self._tally.manifests
        if isinstance(catalog, NearestCatalog) and self._fills and self._ranks is None:
            in_background(lambda: fill(catalog, bundles, self._node), patience=_FILL_PATIENCE)

    def _begin(self, listing: Listing | None = None) -> None:
        """Read what is in the store, and let the download of what is to be loaded begin."""
        with self._clock.stage("list"):
            listing = listing or self._list()
            self._catalog = self._catalog.knowing(listing)
            withdrawn = self._folder.find_quarantined(listing, self._catalog)
        with self._clock.stage("manifests"):
            manifests = parents_first(self._usable(listing))
            wanted = [Order(manifest=one, files=self._restoration.wants(one)) for one in manifests]
            orders = list(self._affordable(wanted))
        self._tally.bytes_wanted += sum(ref.stored_size for order in orders for ref in order.chunks)
        with self._clock.stage("download"):
            deliveries = started(self._catalog.deliver(orders, self._node))
        self._rounds.append(Round(deliveries, manifests=[one.manifest for one in orders], withdrawn=withdrawn))

    def _hold(self) -> bool:
        """Take the whole download of the last round into memory; tell whether something was no longer there."""
        with self._clock.stage("download"):
            held = self._rounds[-1].hold()
        return self._tally.incomplete or any(isinstance(one.fault, MissingError) for one in held)

    def _load_rounds(self) -> None:
        while self._rounds:
            one = self._rounds.pop(0)
            self._folder.clear_quarantined(one.withdrawn)
            with closing(one.deliveries):
                self._load(one.manifests, one.deliveries)
        if lost := self._agreed - set(self._tally.loaded):
            self._tally.left_out.append(f"the other ranks of this job load {', '.join(sorted(lost))}; {RISK}")

    def _stop(self, error: MegacacheError) -> None:
        if self._ranks is not None:
            self._ranks.give_up(str(error))
            for one in self._rounds if not self._agreed else ():
                one.keep([])
        self._lists_again = False
        self._tally.faults.append((error, str(error)))
        self._tally.left_out.append(f"not everything was loaded: {error}")

    def _list(self) -> Listing:
        if self._ranks is None:
            return self._catalog.list()
        return Listing.of(self._ranks.listing(self._catalog.prefix.path, self._catalog.names))

    def _load(self, manifests: Collection[Manifest], deliveries: Iterator[Delivery]) -> None:
        expected = False
        # Not a `for`: only the time until the next delivery counts as download.
        while True:
            with self._clock.stage("download"):
                delivery = next(deliveries, None)
            if delivery is None:
                return
            # Before anything is handed to torch: a marker has to name it. A fault may have come when the time is over.
            if delivery.fault is None and not expected:
                self._folder.expect(manifests)
                expected = True
            self._accept(delivery)

    def _agree(self, ranks: Ranks) -> None:
        """Let only what all ranks have be loaded, once all have it."""
        (last,) = self._rounds
        with self._clock.stage("download"):
            held = last.hold()
        whole = {one.manifest.bundle: one.manifest for one in held if one.last}
        for one in held:
            if one.fault is not None:
                self._accept(one)
        not_needed = self._restoration.not_needed(whole)
        with self._clock.stage("ranks"):
            held_here = {*whole, *not_needed}
            agreed = ranks.agree(self._catalog.prefix.path, held_here, "; ".join(self._tally.left_out))
        if fault := ranks.fault():
            raise fault
        for bundle in sorted(whole.keys() - agreed):
            self._tally.leave_out(bundle, f"not every rank of this job has it: {ranks.decision.why}")
        # A process that this one has started may have voted in its name, and hold more.
        last.keep([whole[bundle] for bundle in sorted(agreed & whole.keys())])
        self._agreed = agreed - frozenset(not_needed)

    def _affordable(self, orders: Sequence[Order]) -> Iterator[Order]:
        """Leave out bundles that are too much, and say so; they are not damaged, and cover what they hold."""
        chosen = affordable(orders, self._left)
        for order in orders:
            size = weight(order.chunks)
            if order.manifest.bundle in chosen:
                self._left -= size
                yield order
            else:
                self._tally.leave_out(
                    order.manifest.bundle, f"its {size:,} bytes are more than is left of {self._limit}"
                )

    def _usable(self, listing: Listing) -> Iterator[Manifest]:
        self._session.rule_out(listing.withdrawn)
        unseen = {bundle: size for bundle, size in listing.visible.items() if bundle not in self._tally.seen}
        self._tally.seen.update(unseen)
        readable = affordable_manifests(unseen)
        if left := len(unseen) - len(readable):
            self._tally.left_out.append(f"{left} of {len(unseen)} bundles were left out: {TOO_MANY}")
        for done in self._catalog.read(readable):
            manifest = done.value
            if manifest is None:
                self._fail(done.item, done.fault)
            elif done.item in self._folder.suspects:
                self._session.rule_out([done.item])
                self._tally.leave_out(done.item, _SUSPECTED.format(url=self._store.url, bundle=done.item))
            elif done.item in self._folder.failed:
                self._leave_out_failed(manifest)
            elif differing := self._environment.mismatches(manifest.environment):
                self._tally.leave_out(done.item, "; ".join(map(str, differing)))
                self._session.rule_out([done.item])
            elif fault := refusal(manifest):
                self._fail(done.item, fault)
            elif not manifest.artifacts and not manifest.files.index:
                self._tally.leave_out(done.item, "it holds nothing that this megacache reads")
            else:
                yield manifest

    def _leave_out_failed(self, manifest: Manifest) -> None:
        """Leave out what could not be used here; what takes its place is published once, and not at each start."""
        bundle = manifest.bundle
        self._tally.leave_out(bundle, _FAILED.format(url=self._store.url, bundle=bundle))
        if len(self._folder.failed) == 1:
            self._session.rule_out([bundle])
        else:
            self._session.cover((), [bundle], manifest.files.index)

    def _accept(self, delivery: Delivery) -> None:
        bundle = delivery.manifest.bundle
        if delivery.fault is not None:
            self._fail(bundle, delivery.fault)
            return
        if bundle in self._tally.failed:
            return
        # Before its files are in place: another start might remove them.
        self._folder.sign_in(bundle)
        try:
            for unpacked in delivery.contents:
                self._use(delivery.manifest, unpacked)
        except CompilerError as error:
            self._fail(bundle, error)
            return
        self._tally.sources.update(delivery.sources)
        if delivery.last:
            self._tally.loaded.append(bundle)
            self._tally.manifests.append(delivery.manifest)
            with self._clock.stage("files"):
                useful = self._folder.settle(delivery.manifest)
            self._settle(delivery.manifest, useful)

    def _settle(self, manifest: Manifest, files: Collection[FileRef]) -> None:
        """Remember what a bundle holds; what it holds for other operators than this program's is known, not loaded."""
        unmet = self._tally.unmet.get(manifest.bundle, {})
        self._session.load(manifest.bundle, [ref for ref in manifest.artifacts if ref not in unmet], files)
        if unmet:
            self._session.cover(unmet, [manifest.bundle])
            names = ", ".join(sorted(frozenset[str]().union(*unmet.values())))
            self._tally.left_out.append(
                f"{counted(len(unmet), 'artifact')} of bundle {manifest.bundle} left out: custom operators are defined "
                f"otherwise here: {names}"
            )

    def _use(self, manifest: Manifest, unpacked: Unpacked) -> None:
        tally = self._tally
        self._store.deadline.check("loading what was downloaded")
        if unpacked.blob:
            with self._clock.stage("load"):
                loaded, unmet = self._folder.load(manifest, unpacked.blob, self._store.deadline)
            tally.artifacts = tally.artifacts.plus(loaded)
            tally.unmet.setdefault(manifest.bundle, {}).update(unmet)
        else:
            with self._clock.stage("files"):
                self._folder.accept(manifest.bundle, unpacked.files)
        tally.bytes_stored += unpacked.ref.stored_size
        tally.bytes_raw += unpacked.ref.raw_size
        self._progress(Progress(stage="download", done=tally.bytes_stored, total=tally.bytes_wanted))

    def _fail(self, bundle: str, fault: MegacacheError | None) -> None:
        self._tally.fail(bundle, fault)
        self._folder.take_back(bundle)
        self._session.give_up(bundle, fault)

    def _result(self) -> WarmResult:
        tally, differs = self._tally, tuple[str, ...]()
        status, error, reason = tally.outcome(self._restoration.warnings)
        if status is WarmStatus.MISS and not reason:
            reason, differs = self._why_nothing
        return WarmResult(
            url=self._places.url,
            status=status,
            reason=reason,
            error=error,
            warnings=(*tally.left_out, *self._places.warnings, *self._restoration.warnings),
            bundles=tuple(tally.loaded),
            artifacts=tally.artifacts.counts(),
            info=tally.artifacts.info,
            differs=differs,
            files=self._restoration.count,
            bytes_files=self._restoration.size,
            bytes_stored=tally.bytes_stored,
            bytes_raw=tally.bytes_raw,
            sources=dict(tally.sources),
        )
