"""Values that several test modules need: artifacts, environments, manifests, bundles, stores."""

import random
import string
import sys
import time
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from hypothesis import settings
from hypothesis import strategies as st

from megacache._bundle import (
    Artifact,
    ArtifactRef,
    ChunkRef,
    CompiledFile,
    Digest,
    Environment,
    EnvironmentPrefix,
    FileRef,
    FilesPart,
    Manifest,
    Payload,
    build_blob,
    describe,
    environment_prefix,
    file_payloads,
    identify_artifact,
    identify_file,
    pack_chunk,
)
from megacache._bundle.artifacts import ARTIFACTS_PART, KINDS
from megacache._bundle.chunk import Chunk
from megacache._bundle.environment import FACTS
from megacache._cache import WarmResult
from megacache._cache.cache_folder import CacheFolder
from megacache._cache.call import Call
from megacache._cache.crash_guard import CrashGuard
from megacache._cache.session import Session
from megacache._cache.warm import Warming
from megacache._catalog import WARM_MAX_BYTES, Catalog, Places
from megacache._runtime import Deadline
from megacache._settings import Settings
from megacache._store import Store
from megacache._trust import Signing, TrustPolicy

UNHURRIED = settings(deadline=None)
"""For property tests: how long an example takes says nothing on a busy machine."""

INDUCTOR_KEY = "f" + "a2z7" * 12 + "abc"
AOT_KEY = "a" + "b3y6" * 12 + "abc"
AUTOTUNE_KEY = "ab/" + "0f" * 32 + ".best_config"
PGO_KEY = "training-run-7:0:None"


def noise(size: int, seed: int = 0) -> bytes:
    """Give bytes that no compressor makes smaller."""
    return random.Random(seed).randbytes(size)


class Graph:
    """Stands for `CompiledFxGraph`, with the attributes that are read."""

    def __init__(self, lines: list[str] | None, guard: str | None = None) -> None:
        self.__dict__.update(source="x" * 300, _fx_graph_cache_debug_lines=lines, guards_expr=guard, later=["[y] z: 1"])


def artifact(key: str = INDUCTOR_KEY, content: bytes = b"content", *, kind: str = "inductor") -> Artifact:
    """Make an artifact."""
    return Artifact(kind=kind, key=key, content=content)


def artifacts(count: int, *, size: int = 1000, seed: int = 0) -> list[Artifact]:
    """Make artifacts with keys and contents of their own."""
    return [artifact(f"f{seed}x{n}", noise(size, seed * 1000 + n)) for n in range(count)]


def plain(artifact: Artifact) -> tuple[str, str, bytes]:
    """Give what makes an artifact equal to another, whether it holds bytes or a view of them."""
    return artifact.kind, artifact.key, bytes(artifact.content)


def environment(recorded: Mapping[str, str] | None = None, /, **facts: str) -> Environment:
    """Make an environment with a value for every fact, some of them given."""
    return Environment(facts={**{name: f"some {name}" for name in FACTS}, **facts}, recorded=recorded or {})


def payload(artifacts: Sequence[Artifact]) -> Payload:
    """Put artifacts into one chunk, however many there are."""
    weight = sum(artifact.weight for artifact in artifacts)
    return Payload(part=ARTIFACTS_PART, weight=weight, build=lambda: build_blob(artifacts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundle:
    """A bundle that is not in a store yet."""

    manifest: Manifest
    chunks: tuple[Chunk, ...]


def compiled_file(path: str = "ab/library.so", content: bytes = b"content", *, mode: int = 0o755) -> CompiledFile:
    """Make a compiled file."""
    return CompiledFile(root="inductor", path=path, mode=mode, content=content)


def bundle(
    *groups: Sequence[Artifact],
    here: Environment | None = None,
    labels: Mapping[str, str] | None = None,
    files: Sequence[CompiledFile] = (),
    guard: Mapping[str, str] | None = None,
    parents: Sequence[str] = (),
) -> Bundle:
    """Make a bundle with one chunk for each group, and one for files if there are any."""
    chunks = tuple(map(pack_chunk, [*map(payload, groups), *file_payloads(files)]))
    manifest = describe(
        environment=here or environment(),
        artifacts=[identify_artifact(artifact) for group in groups for artifact in group],
        chunks=[chunk.ref for chunk in chunks],
        parents=parents,
        labels=labels or {},
        files=FilesPart(guard=guard or {}, index=tuple(map(identify_file, files))),
    )
    return Bundle(manifest=manifest, chunks=chunks)


def prefix_of(environment: Environment) -> EnvironmentPrefix:
    """Say where the bundles of an environment lie."""
    return environment_prefix(environment.device, environment.fingerprint)


def open_store(url: str | None = None) -> Store:
    """Open a store, by default one in memory that no other test uses."""
    return Store.open(url or f"memory://{uuid.uuid4().hex}", storage_options=None, deadline=Deadline.after(60))


@dataclass(frozen=True, slots=True, kw_only=True)
class CallOn(Call):
    """A call that finds a store open."""

    store: Store
    signed: Callable[[], Signing] = Signing

    def open_store(self) -> Store:
        """Give the store."""
        return self.store

    def signing(self) -> Signing:
        """Sign as it is told."""
        return self.signed()


def call_on(store: Store, signing: Callable[[], Signing] = Signing) -> Call:
    """Make a call on a store."""
    settings = Settings(url=None, disabled=False, read_only=False, node_max_bytes=0)
    return CallOn(url=store.url, settings=settings, deadline=store.deadline, store=store, signed=signing)


def warm_up(
    store: Store,
    here: Environment,
    markers: Path,
    *,
    policy: TrustPolicy | None = None,
    max_bytes: int = WARM_MAX_BYTES,
) -> WarmResult:
    """Make a warm start as a process would that is told its environment, with its markers in a folder."""
    verb = call_on(store)
    folder = CacheFolder(verb, CrashGuard(markers))
    folder.begin(files=True)
    warming = Warming(verb, Places.only(store), here, Session(), folder, policy=policy, max_bytes=max_bytes)
    warming.fetch()
    return warming.load(store.deadline)


def upload(store: Store, *bundles: Bundle) -> None:
    """Put bundles into a store."""
    for one in bundles:
        place = prefix_of(one.manifest.environment)
        for chunk in one.chunks:
            store.create(place.chunk(chunk.ref.digest), chunk.stored)
        Catalog.of(store, one.manifest.environment).announce(one.manifest)


def finish_workers() -> None:
    """Wait until no worker is left, of all that megacache has started in this process."""
    ends = time.monotonic() + 60
    while any(map(_works, sys._current_frames().values())):
        assert time.monotonic() < ends
        time.sleep(0.01)


def _works(frame: FrameType | None) -> bool:
    """Tell whether a thread is one of megacache's workers."""
    return frame is not None and (frame.f_code.co_qualname == "_start.<locals>.begin" or _works(frame.f_back))


any_text = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
"""Any text that UTF-8 can carry."""
any_artifact = st.builds(Artifact, kind=any_text, key=any_text, content=st.binary(max_size=50))
safe_names = st.text(string.ascii_letters + string.digits + "_-", min_size=1, max_size=128)
portable_artifact = st.one_of(
    st.builds(
        Artifact, kind=st.sampled_from(["inductor", "aot_autograd"]), key=safe_names, content=st.binary(max_size=50)
    ),
    st.builds(
        Artifact,
        kind=st.just("pgo"),
        key=st.text(string.digits + string.ascii_letters + "!~ :/", min_size=1, max_size=235),
        content=st.binary(max_size=50),
    ),
    st.builds(
        Artifact,
        kind=st.just("autotune"),
        key=st.builds("{}/{}.best_config".format, safe_names, safe_names),
        content=st.binary(max_size=50),
    ),
)
digests = st.builds(Digest.of, st.binary(max_size=4))
sizes = st.integers(0, 2 << 30)
texts = st.dictionaries(any_text, any_text, max_size=4)
manifests = st.builds(
    Manifest,
    bundle=any_text,
    created=any_text,
    producer=any_text,
    environment=st.builds(Environment, facts=texts, recorded=texts),
    parents=st.lists(any_text, max_size=3).map(tuple),
    artifacts=st.lists(
        st.builds(ArtifactRef, kind=st.sampled_from(sorted(KINDS)), key=any_text, digest=digests, size=sizes),
        max_size=4,
    ).map(tuple),
    chunks=st.lists(
        st.builds(ChunkRef, part=any_text, digest=digests, stored_size=sizes, raw_size=sizes, codec=any_text),
        max_size=4,
    ).map(tuple),
    files=st.builds(
        FilesPart,
        guard=texts,
        probes=st.lists(any_text, max_size=3).map(tuple),
        index=st.lists(
            st.builds(FileRef, root=any_text, path=any_text, digest=digests, size=sizes, mode=st.integers(0, 0o777)),
            max_size=3,
        ).map(tuple),
    ),
    labels=texts,
    operators=texts,
)
