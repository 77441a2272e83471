"""Find out why graphs missed: what differs between this process and the nearest published environment or graph."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from itertools import accumulate

from megacache import _compiler
from megacache._bundle import Artifact, Environment, GraphKey, Manifest, identify_artifact, parse_keys
from megacache._cache.call import Call
from megacache._cache.explain.data import collect, explain_chunks
from megacache._cache.explain.explanation import Difference, ExplainStatus, Explanation, GraphMiss
from megacache._cache.explain.files import unfit_files
from megacache._cache.explain.nearest import differences, nearest
from megacache._cache.root_bundles import Unfit
from megacache._cache.session import Session
from megacache._catalog import Places, affordable_manifests, catalog_of, nearest_other
from megacache._runtime import Deadline, counted, shown
from megacache._trust import TrustPolicy
from megacache.errors import BundleError, CompilerError, MegacacheError

Names = frozenset[tuple[str, str]]
"""Kind and key of what is published."""

_MAX_BYTES = 64 << 20
_MAX_COMPONENTS = 1 << 22
_AUTOGRAD_ONLY = (
    "its Inductor graphs are in the store, so only AOTAutograd's part was compiled; an argument or a module may have "
    "another name, or AOTAutograd another configuration (PyTorch keeps no components of this key; it logs them under "
    "TORCH_LOGS=+torch._functorch._aot_autograd.autograd_cache)"
)
_NOTHING_TO_COMPARE = "no bundle in the store holds explain data of a graph"
_NO_TIME = "it was not compared: time ran out"
_NO_COMPONENTS = "PyTorch keeps no components of its key"


def explain(call: Call) -> Explanation:
    """Look at what PyTorch has recorded in this process, and at what is published."""
    recorded = _compiler.record(call.deadline)
    environment = _compiler.current_environment(call.deadline)
    # A compilation may have been waited for, and the timeout is for the store.
    call = call.restarted()
    policy = call.policy()
    return Explaining(call.open_places(), environment, call.session(), recorded, policy).run()


class Explaining:
    """One explanation."""

    def __init__(
        self,
        places: Places,
        environment: Environment,
        session: Session,
        recorded: Sequence[Artifact],
        policy: TrustPolicy | None = None,
    ) -> None:
        self._places = places
        self._store = places.store
        self._environment = environment
        self._policy = policy
        self._catalog = catalog_of(places, self._environment, policy)
        self._session = session
        self._graphs = [artifact for artifact in recorded if artifact.kind == "inductor"]
        self._entries = [artifact for artifact in recorded if artifact.kind == "aot_autograd"]
        self._warnings: list[str] = []

    def run(self) -> Explanation:
        """Compare the environments if nothing is published for this one, else the graphs."""
        manifests = self._read()
        if manifests:
            found = self._with_files(self._compare_graphs(manifests), manifests)
        elif self._warnings:
            error = BundleError(f"none of {counted(len(self._warnings), 'published bundle')} can be used")
            found = replace(self._explanation(ExplainStatus.UNAVAILABLE, str(error)), error=error)
        else:
            found = self._compare_environments()
        return replace(
            found,
            warnings=(*self._places.warnings, *self._warnings),
            fingerprint=self._environment.fingerprint,
            graphs=len(self._graphs),
        )

    def _read(self) -> list[Manifest]:
        """Read the manifests, newest first, without those that this process published."""
        listing = self._catalog.list()
        self._catalog = self._catalog.knowing(listing)
        # This process had missed what it then published itself.
        others = {bundle: size for bundle, size in listing.visible.items() if bundle not in self._session.written}
        manifests = []
        for done in self._catalog.read(affordable_manifests(others)):
            if done.value is None:
                self._warnings.append(f"bundle {done.item} was left out: {done.fault}")
            elif done.item in self._session.unusable or self._environment.mismatches(done.value.environment):
                self._warnings.append(
                    f"bundle {done.item} was left out: it is damaged, or lies under another environment"
                )
            else:
                manifests.append(done.value)
        return sorted(manifests, key=lambda manifest: (manifest.created, manifest.bundle), reverse=True)

    def _compare_environments(self) -> Explanation:
        nothing = f"nothing is published for {self._environment.device} ({self._environment.fingerprint})"
        if self._session.written:
            nothing += " but by this process"
        other, others = nearest_other(self._store, self._environment, self._policy)
        if other is None:
            return self._explanation(ExplainStatus.ENVIRONMENT, f"{nothing}, nor for another environment")
        found = self._explanation(
            ExplainStatus.ENVIRONMENT, f"{nothing}; the nearest of {counted(others, 'other environment')} differs"
        )
        return replace(found, mismatches=self._environment.mismatches(other))

    def _compare_graphs(self, manifests: Sequence[Manifest]) -> Explanation:
        if not self._graphs and not self._entries:
            return self._explanation(ExplainStatus.EMPTY, "this process has compiled no graph that PyTorch recorded")
        refs = frozenset(ref for manifest in manifests for ref in manifest.artifacts)
        present = frozenset((ref.kind, ref.key) for ref in refs)
        # What has the very bytes of a published artifact was loaded, and has hit.
        graphs = [graph for graph in self._graphs if identify_artifact(graph) not in refs]
        published = [key for key in self._published_keys(manifests) if (key.kind, key.key) in present]
        misses = [
            *_missed_graphs(graphs, present, published, self._store.deadline),
            *_missed_entries(self._entries, present),
        ]
        if not misses:
            return self._explanation(ExplainStatus.COVERED, self._covered())
        reason = f"{counted(len(misses), 'graph')} that this process compiled, and that nobody else has published"
        return replace(self._explanation(ExplainStatus.GRAPHS, reason), misses=tuple(misses))

    def _with_files(self, found: Explanation, manifests: Sequence[Manifest]) -> Explanation:
        """Add why no files of a program such as vLLM fit, in which there are graphs that nobody else tells of."""
        unfit: Sequence[Unfit] = ()
        try:
            unfit = unfit_files(manifests, self._store.deadline)
        except CompilerError as error:
            self._warnings.append(f"the files of programs were not compared: {error}")
        if not unfit:
            return found
        if found.status is not ExplainStatus.GRAPHS:
            found = replace(found, status=ExplainStatus.FILES, reason="; ".join(map(str, unfit)))
        else:
            found = replace(found, reason="; ".join([found.reason, *map(str, unfit)]))
        return replace(found, mismatches=tuple(one for each in unfit for one in each.mismatches))

    def _published_keys(self, manifests: Sequence[Manifest]) -> list[GraphKey]:
        without = [m for m in manifests if not explain_chunks(m) and any(ref.kind == "inductor" for ref in m.artifacts)]
        if without:
            self._warnings.append(
                f"{counted(len(without), 'bundle')} without explain data: the graphs in it cannot be compared"
            )
        refs = [(manifest.bundle, ref) for manifest in manifests for ref in explain_chunks(manifest)]
        sizes = accumulate(max(ref.raw_size, ref.stored_size) for _, ref in refs)
        wanted = [ref for ref, size in zip(refs, sizes, strict=True) if size <= _MAX_BYTES]
        if len(wanted) < len(refs):
            self._warnings.append(f"explain data of the oldest {len(refs) - len(wanted)} bundles was left out")
        found: list[GraphKey] = []
        left = _MAX_COMPONENTS
        with closing(self._catalog.fetch(wanted)) as arrivals:
            for done in arrivals:
                try:
                    keys = parse_keys(done.result())
                except MegacacheError as error:
                    self._warnings.append(f"explain data could not be read: {error}")
                    continue
                left -= sum(len(key.components) for key in keys)
                if left < 0:
                    self._warnings.append("the rest of the explain data was left out: there is too much")
                    break
                found += keys
        return found

    def _covered(self) -> str:
        if self._session.bundles - self._session.written:
            return "nothing missed: the store holds every graph that this process compiled"
        return (
            "the store holds every graph that this process compiled, but it has loaded none of them: "
            "call warm() before the first compilation"
        )

    def _explanation(self, status: ExplainStatus, reason: str) -> Explanation:
        return Explanation(status=status, url=self._places.url, reason=reason)


def _missed_graphs(
    graphs: Sequence[Artifact], present: Names, published: Sequence[GraphKey], deadline: Deadline
) -> Iterator[GraphMiss]:
    known = {(key.kind, key.key): key for key in collect(graphs)}
    for name in dict.fromkeys((graph.kind, graph.key) for graph in graphs):
        key = known.get(name)
        if name not in present and key and deadline.remaining():
            yield _compared(key, published)
        elif name not in present:
            yield GraphMiss(kind=name[0], key=name[1], reason=_NO_TIME if key else _NO_COMPONENTS)
        elif key:
            yield from _guarded(key, [other for other in published if (other.kind, other.key) == name])


def _missed_entries(entries: Sequence[Artifact], present: Names) -> Iterator[GraphMiss]:
    # Where a graph of Inductor's has missed, the entry that holds it has missed for the same reason.
    for entry in {entry.key: entry for entry in entries}.values():
        below = _compiler.graphs_below(entry)
        if (entry.kind, entry.key) not in present and all(("inductor", key) in present for key in below):
            yield GraphMiss(kind=entry.kind, key=entry.key, reason=_AUTOGRAD_ONLY if below else _NO_COMPONENTS)


def _compared(key: GraphKey, published: Sequence[GraphKey]) -> GraphMiss:
    other = nearest(key, published)
    if other is None:
        return GraphMiss(kind=key.kind, key=key.key, role=key.role, reason=_NOTHING_TO_COMPARE)
    return GraphMiss(kind=key.kind, key=key.key, role=key.role, nearest=other.key, differences=differences(key, other))


def _guarded(key: GraphKey, variants: Sequence[GraphKey]) -> Iterator[GraphMiss]:
    """Report a graph whose key is published, but with other conditions on sizes."""
    guards = [variant.guard for variant in variants]
    if guards and key.guard not in guards:
        yield GraphMiss(
            kind=key.kind,
            key=key.key,
            role=key.role,
            nearest=key.key,
            differences=(Difference(name="guard", here=shown(key.guard), there=shown(" or ".join(guards))),),
        )
