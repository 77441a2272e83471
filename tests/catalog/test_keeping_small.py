"""Whatever is published, merged, deleted, pinned and withdrawn, and whoever dies on the way: nothing is lost."""

import shutil
import tempfile
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle as Known
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from megacache._bundle import PINNED, QUARANTINED, ArtifactRef, Manifest, identify_artifact
from megacache._cache.publish import Publication
from megacache._cache.results import PublishStatus
from megacache._cache.session import Session
from megacache._catalog import (
    Catalog,
    Compaction,
    Holding,
    Inventory,
    Order,
    RetentionPlan,
    Terms,
    heirs,
    plan_retention,
)
from megacache._runtime import Deadline
from megacache._store import Entry, Store
from megacache._trust import Signing
from megacache.errors import MegacacheError, UnavailableError
from tests.kit.builders import (
    UNHURRIED,
    artifact,
    bundle,
    call_on,
    compiled_file,
    environment,
    finish_workers,
    prefix_of,
    upload,
)
from tests.kit.torchless import recorded

HERE = environment()
PLACE = prefix_of(HERE)
HOUR = 3_600.0
GRACE = 24 * HOUR
STEPS = st.integers(1, 12)
SETTLED = {PublishStatus.PUBLISHED, PublishStatus.DUPLICATE, PublishStatus.COVERED}


class Stage(Store):
    """A store with a clock of its own, in which its user can be interrupted, or die, before any request."""

    now = 0.0
    _times: dict[str, float]
    _left: int | None = None
    _event: Callable[[], object] | None = None

    def list(self, folder: str = "") -> tuple[Entry, ...]:
        """List."""
        self._step()
        start = f"{folder}/" if folder else ""
        times = self._times
        return tuple(replace(one, modified=times.get(f"{start}{one.key}", self.now)) for one in super().list(folder))

    def read(self, key: str, *, size: int) -> bytes:
        """Read."""
        self._step()
        return super().read(key, size=size)

    def create(self, key: str, data: bytes) -> bool:
        """Create, and remember when."""
        self._step()
        created = super().create(key, data)
        if created:
            self._times[key] = self.now
        return created

    def age(self, key: str) -> float | None:
        """Tell by its own clock."""
        self._step()
        return self.now - self._times[key]

    def delete(self, key: str) -> None:
        """Delete."""
        self._step()
        super().delete(key)

    def _step(self) -> None:
        if self._left is None:
            return
        self._left -= 1
        if self._left == 0 and self._event is not None:
            event, self._event, self._left = self._event, None, None
            event()
        elif self._left is not None and self._left <= 0:
            raise UnavailableError("the process is dead")

    @contextmanager
    def interrupted(self, steps: int, event: Callable[[], object] | None) -> Iterator[None]:
        """Let something else happen before the last of some requests; without it, fail from then on."""
        self._left, self._event = steps, event
        try:
            yield
        finally:
            self._left = self._event = None


class Machine(RuleBasedStateMachine):
    """What happens in one environment, beside what should be true of it."""

    plans = Known("plans")

    def __init__(self) -> None:
        super().__init__()
        self.store = Stage.open(self.url(), storage_options=None, deadline=Deadline.after(600))
        self.store._times = {}
        self.catalog = Catalog(self.store, PLACE)
        self.seen: set[ArtifactRef] = set()
        """What readers were given once, and nobody has withdrawn."""
        self.banned: set[ArtifactRef] = set()
        """What was quarantined, and published by nobody since."""
        self.pinned: set[str] = set()
        self.readers: list[tuple[float, set[str]]] = []
        """When somebody began to read, and the objects that they may still fetch."""
        self.patch = pytest.MonkeyPatch()
        self.patch.setattr("megacache._runtime.threads.WORKERS", 1)
        self.patch.setattr("megacache._cache.publish.explain_payloads", lambda _: ())
        self.count = 0
        self.overlapping = False

    def url(self) -> str:
        """Name a store in memory that no other run uses."""
        return f"memory://{uuid.uuid4().hex}"

    def teardown(self) -> None:
        """See that in the end all that is left is what readers see."""
        try:
            self.store.now += 2 * GRACE
            self.collect()
            self.store.now += 2 * GRACE
            self.collect()
            for holding in self.holdings():
                kept = {bundle for bundle in holding.manifests if bundle in holding.visible or bundle in self.pinned}
                named = {ref.digest for one in self.manifests(kept) for ref in one.chunks}
                assert holding.manifests.keys() == kept
                assert holding.chunks.keys() == named
                assert holding.marks.keys() <= kept
        finally:
            self.patch.undo()

    def holdings(self) -> tuple[Holding, ...]:
        """List."""
        return Inventory.of(self.store).holdings

    def manifests(self, bundles: set[str]) -> list[Manifest]:
        """Read manifests."""
        sizes = {one: size for holding in self.holdings() for one, size in holding.manifests.items() if one in bundles}
        return [done.result() for done in self.catalog.read(sizes)]

    def visible(self) -> list[Manifest]:
        """Read what readers see."""
        return [done.result() for done in self.catalog.read(self.catalog.list().visible)]

    def forgive(self, bundles: set[str]) -> None:
        """Let what some bundles hold be gone from now on."""
        self.seen -= {ref for one in self.manifests(bundles) for ref in one.artifacts}

    # What happens.

    def publish(self, numbers: frozenset[int], *, same: bool = False) -> None:
        """Publish as a worker does, whose bytes are nobody else's, unless it tries again what it tried before."""
        self.count += not same
        made = [artifact(f"key{n}", f"{n} {self.count}".encode()) for n in numbers]
        made.append(artifact(f"own{self.count}", b"new"))
        self.banned -= set(map(identify_artifact, made))
        files = [compiled_file(f"ab/{n}.so", f"{n}".encode()) for n in numbers if n % 2]
        found = replace(recorded(made, files), environment=HERE)
        done = Publication(call_on(self.store), found, Session()).run()
        assert done.status in SETTLED
        if not self.overlapping:  # else it may have been withdrawn already
            keys = {ref.key for one in self.visible() for ref in one.artifacts}
            assert {one.key for one in made} <= keys

    def race(self, number: int) -> None:
        """Publish what a worker does that has seen no other bundle."""
        self.count += 1
        made = [artifact(f"key{number}", str(self.count).encode()), artifact("key0", str(self.count).encode())]
        upload(self.store, bundle(made[:1], made[1:], here=HERE, parents=[f"{self.count:032}"]))

    def compact(self) -> None:
        """Merge."""
        for job in [Compaction(self.store, holding, Signing()) for holding in self.holdings()]:
            job.apply(job.plan(), lambda _: None)

    def collect(self, plans: tuple[RetentionPlan, ...] | None = None, *, all_of_it: bool = False) -> None:
        """Delete as the command does: what was shown, as far as it is still so."""
        terms = Terms(now=self.store.now, grace=GRACE, older_than=-1e12 if all_of_it else None)
        shown = plans or plan_retention(self.store, self.holdings(), terms)
        latest = {one.prefix: one for one in plan_retention(self.store, self.holdings(), terms)}
        for plan in (one.still(latest[one.prefix]) for one in shown if one.prefix in latest):
            self.forgive(set(plan.withdrawn))
            plan.apply(self.store, lambda _: None)

    def quarantine(self, index: int) -> None:
        """Withdraw a bundle, and whatever else holds the same, as the command says."""
        for holding in self.holdings():
            bundle = sorted(holding.manifests)[index % len(holding.manifests)] if holding.manifests else None
            if bundle is not None:
                refs = {ref for one in self.manifests({bundle}) for ref in one.artifacts}
                self.forgive({bundle})
                self.catalog.mark(bundle, QUARANTINED)
                for one in heirs(self.store, holding, bundle):
                    self.forgive({one})
                    self.catalog.mark(one, QUARANTINED)
                self.banned |= refs - {ref for one in self.visible() for ref in one.artifacts}

    def pin(self, index: int, *, visible: bool = True) -> None:
        """Keep a bundle."""
        bundles = sorted(one for each in self.holdings() for one in (each.visible if visible else each.manifests))
        if bundles:
            bundle = bundles[index % len(bundles)]
            self.banned -= {ref for one in self.manifests({bundle}) for ref in one.artifacts}
            self.catalog.mark(bundle, PINNED)
            self.pinned.add(bundle)

    def happens(self, name: str, number: int) -> None:
        """Do something while something else is under way."""
        match name:
            case "publish":
                self.publish(frozenset({number, number + 1}))
            case "compact":
                self.compact()
            case "collect":
                self.collect()
            case "quarantine":
                self.quarantine(number)
            case "pin":
                self.pin(number)
            case _:
                self.store.now += 10 * HOUR

    # What is tried.

    @rule(numbers=st.frozensets(st.integers(0, 5), min_size=1, max_size=3), same=st.booleans())
    def publishes(self, numbers: frozenset[int], *, same: bool) -> None:
        """Publish."""
        self.publish(numbers, same=same)

    @rule(number=st.integers(0, 5))
    def races(self, number: int) -> None:
        """Publish one more variant."""
        self.race(number)

    @rule()
    def compacts(self) -> None:
        """Merge; of what can be merged one bundle is left."""
        self.compact()
        marks = {bundle: marks for one in self.holdings() for bundle, marks in one.marks.items()}
        assert sum(PINNED not in marks.get(one.bundle, ()) for one in self.visible()) <= 1

    @rule(everything=st.booleans())
    def collects(self, *, everything: bool) -> None:
        """Delete, or withdraw the whole environment."""
        self.collect(all_of_it=everything)

    @rule(index=st.integers(0, 9))
    def quarantines(self, index: int) -> None:
        """Withdraw a bundle."""
        self.quarantine(index)

    @rule(index=st.integers(0, 9))
    def pins(self, index: int) -> None:
        """Pin a bundle, whether readers see it or not."""
        self.pin(index, visible=False)

    @precondition(lambda self: self.pinned)
    @rule(index=st.integers(0, 9))
    def unpins(self, index: int) -> None:
        """Take a pin away, and with it perhaps a superseded bundle, of which the merged one may have been withdrawn."""
        bundle = sorted(self.pinned)[index % len(self.pinned)]
        self.forgive({bundle})
        self.catalog.unpin(bundle)
        self.pinned.remove(bundle)

    @rule(hours=st.sampled_from([1, 10, 25]))
    def waits(self, hours: int) -> None:
        """Let time go by."""
        self.store.now += hours * HOUR

    @rule(target=plans, which=st.sampled_from(["compact", "collect"]))
    def plans_ahead(self, which: str) -> Any:
        """Decide something, to do it later."""
        if which == "compact":
            jobs = [Compaction(self.store, one, Signing()) for one in self.holdings()]
            return self.store.now, "compact", [(job, job.plan()) for job in jobs]
        terms = Terms(now=self.store.now, grace=GRACE)
        return self.store.now, "collect", plan_retention(self.store, self.holdings(), terms)

    @rule(made=plans)
    def applies_what_was_planned(self, made: Any) -> None:
        """Do what was decided earlier, within the grace period."""
        at, which, plans = made
        if self.store.now - at >= GRACE:
            return
        if which == "collect":
            self.collect(plans)
        else:
            for job, plan in plans:
                job.apply(plan, lambda _: None)

    @rule(
        what=st.sampled_from(["publish", "compact", "collect"]),
        meanwhile=st.sampled_from(["publish", "compact", "collect", "quarantine", "pin", "time"]),
        steps=STEPS,
        number=st.integers(0, 5),
    )
    def overlaps(self, what: str, meanwhile: str, steps: int, number: int) -> None:
        """Do one thing in the midst of another."""
        self.overlapping = True
        with self.store.interrupted(steps, lambda: self.happens(meanwhile, number)):
            self.act(what, number)
        self.overlapping = False

    @rule(what=st.sampled_from(["publish", "compact", "collect", "quarantine"]), steps=STEPS, number=st.integers(0, 5))
    def dies(self, what: str, steps: int, number: int) -> None:
        """Die on the way."""
        try:
            with self.store.interrupted(steps, None):
                self.act(what, number)
        except MegacacheError:
            finish_workers()  # of which one may have been about to write

    def act(self, what: str, number: int) -> None:
        """Do something."""
        match what:
            case "publish":
                self.publish(frozenset({number, number + 2}))
            case "compact":
                self.compact()
            case "collect":
                self.collect()
            case _:
                self.quarantine(number)

    # What is true.

    @invariant()
    def visible_bundles_are_whole_and_nothing_is_lost(self) -> None:
        """Readers find every chunk, all that they were given before, and what is pinned."""
        found = self.visible()
        deliveries = list(self.catalog.deliver([Order(manifest=one, files=True) for one in found]))
        assert [str(one.fault) for one in deliveries if one.fault] == []
        given = {ref for one in found for ref in one.artifacts}
        assert self.seen <= given
        self.seen = given
        assert not self.banned & given
        marks = {bundle: marks for one in self.holdings() for bundle, marks in one.marks.items()}
        assert {bundle for bundle in self.pinned if QUARANTINED not in marks[bundle]} <= {one.bundle for one in found}
        assert self.pinned <= {bundle for one in self.holdings() for bundle in one.manifests}
        self.begin_to_read(found)

    def begin_to_read(self, found: list[Manifest]) -> None:
        """Remember what somebody may read who has just listed the store."""
        chunks = {PLACE.chunk(ref.digest) for one in found for ref in one.chunks}
        self.readers.append((self.store.now, chunks | {PLACE.manifest(one.bundle) for one in found}))

    @invariant()
    def readers_go_on(self) -> None:
        """Whoever began to read within the grace period finds what was listed."""
        self.readers = [(at, keys) for at, keys in self.readers if self.store.now - at < GRACE]
        there = {entry.key for entry in self.store.list()}
        for _, keys in self.readers:
            assert keys <= there


class OnDisk(Machine):
    """The same on a disk."""

    def url(self) -> str:
        """Make a folder."""
        self.folder = tempfile.mkdtemp()
        return self.folder

    def teardown(self) -> None:
        """Remove the folder."""
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.folder)


@pytest.mark.parametrize("steps", range(1, 21))
def test_same_merge_in_the_midst_of_a_merge_loses_nothing(steps: int) -> None:
    """Two have planned the same, and one does it between two requests of the other: what they merged stays visible."""
    state = Machine()
    for number in (1, 3):
        state.races(number=number)
        state.publishes(numbers=frozenset([number, number + 1]), same=False)
    (holding,) = state.holdings()
    one, other = (Compaction(state.store, holding, Signing()) for _ in range(2))
    plan, same = one.plan(), other.plan()
    with state.store.interrupted(steps, lambda: other.apply(same, lambda _: None)):
        one.apply(plan, lambda _: None)
    assert len(list(state.visible())) == 1
    state.visible_bundles_are_whole_and_nothing_is_lost()
    state.readers_go_on()
    state.teardown()


def test_old_plan_brings_nothing_back_that_was_withdrawn_since() -> None:
    """What two plans would merge has been merged by one, and that withdrawn, when the other is applied."""
    state = Machine()
    state.races(number=0)
    state.publishes(numbers=frozenset([0]), same=False)
    first = state.plans_ahead(which="compact")
    state.races(number=0)
    second = state.plans_ahead(which="compact")
    state.applies_what_was_planned(made=first)
    state.quarantines(index=1)
    state.applies_what_was_planned(made=second)
    state.visible_bundles_are_whole_and_nothing_is_lost()
    state.teardown()


_HOW = settings(UNHURRIED, stateful_step_count=25, suppress_health_check=list(HealthCheck))
TestInMemory = Machine.TestCase
TestInMemory.settings = settings(_HOW, max_examples=60)
TestOnDisk = OnDisk.TestCase
TestOnDisk.settings = settings(_HOW, max_examples=15)
