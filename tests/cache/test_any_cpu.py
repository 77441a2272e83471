"""On hosts with one type of GPU, what holds nothing for the CPU is published for all CPUs, and the rest for one."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from megacache import Cache, PublishResult, WarmResult, _compiler, _trust
from megacache._bundle import Artifact, CompiledFile, Environment, Manifest, open_envelope, pack_signatures
from megacache._cache.explain.misses import Explaining
from megacache._cache.publish import Publication
from megacache._cache.recording import Recorded
from megacache._cache.session import Session
from megacache._catalog import Catalog, Inventory, Places
from megacache._runtime import forget
from megacache._store import Store
from megacache._trust import TrustPolicy
from tests.compiler.test_code import CPP, OTHER, TRITON, graph
from tests.kit.builders import bundle, call_on, environment, open_store, prefix_of, upload, warm_up
from tests.kit.servers.moto import MotoServer
from tests.kit.torchless import Compiler, recorded

OLD_CPU, NEW_CPU = (environment(device_type="cuda", cpu_capability=name) for name in ("AVX2", "AVX512"))
SHARED = OLD_CPU.for_any_cpu or OLD_CPU
FOR_GPU, FOR_CPU = graph(TRITON), graph(CPP, key=OTHER)
UTILS = CompiledFile(root="triton", path="KEY/cuda_utils.so", mode=0o755, content=b"1")
LIBRARY = CompiledFile(root="inductor", path="ab/c.main.so", mode=0o755, content=b"2")
GUARD = {"libc": "glibc 2.36", "cpu_flags": "avx2", "cpu_target": "avx2"}


pytestmark = pytest.mark.usefixtures("compiler")


@pytest.fixture
def store() -> Store:
    """Open an empty store."""
    return open_store()


def compiled(here: Environment, *artifacts: Artifact, files: Sequence[CompiledFile] = ()) -> Recorded:
    """Make what a process has compiled."""
    found = recorded(artifacts, files)
    missing = (("triton", "gone.so"), ("inductor", "gone.so")) if files else ()
    return replace(found, environment=here, guard=GUARD, probes=("avx2:_code",), missing=missing)


def publish(store: Store, here: Environment, *artifacts: Artifact, files: Sequence[CompiledFile] = ()) -> PublishResult:
    """Publish as a process that knows of nothing."""
    return Publication(call_on(store), compiled(here, *artifacts, files=files), Session()).run()


def manifests(store: Store, where: Environment) -> list[Manifest]:
    """Read what is published for one environment alone."""
    catalog = Catalog(store, prefix_of(where))
    return [done.result() for done in catalog.read(catalog.list().visible)]


def test_each_part_lies_where_it_serves(store: Store) -> None:
    """Graphs and files for the GPU are told apart from those for the CPU, with what is said of them."""
    result = publish(store, OLD_CPU, FOR_GPU, FOR_CPU, files=[UTILS, LIBRARY])
    assert (result.status, len(result.bundles), dict(result.artifacts)) == ("published", 2, {"inductor": 2})
    (shared,), (own,) = manifests(store, SHARED), manifests(store, OLD_CPU)
    assert ([one.key for one in shared.artifacts], [one.root for one in shared.files.index]) == (
        [FOR_GPU.key],
        ["triton"],
    )
    assert ([one.key for one in own.artifacts], [one.root for one in own.files.index]) == ([OTHER], ["inductor"])
    # What another CPU must not believe is not told.
    assert (shared.files.probes, dict(shared.files.guard)) == ((), {"libc": "glibc 2.36"})
    assert (own.files.probes, dict(own.files.guard)) == (("avx2:_code",), GUARD)
    assert (shared.files.missing, own.files.missing) == ((("triton", "gone.so"),), (("inductor", "gone.so"),))


def test_hosts_with_another_cpu_load_what_is_shared(store: Store, tmp_path: Path) -> None:
    """Both load what is for the GPU, and each what is for its own CPU; what both compile is stored once."""
    publish(store, OLD_CPU, FOR_GPU, FOR_CPU)
    assert publish(store, NEW_CPU, FOR_GPU).status == "covered"
    assert publish(store, NEW_CPU, FOR_GPU, FOR_CPU).artifacts == {"inductor": 1}
    for here in (OLD_CPU, NEW_CPU):
        result = warm_up(store, here, tmp_path / here.fingerprint)
        assert (result.status, result.warnings) == ("loaded", ())
        expected = {one.bundle for where in (SHARED, here) for one in manifests(store, where)}
        assert set(result.bundles) == expected
        assert len(expected) == 2
    assert len(Inventory.of(store).holdings) == 3


def test_what_an_earlier_version_published_is_read(store: Store, tmp_path: Path) -> None:
    """A store in which everything is filed by its CPU serves that CPU as ever; from the next publication on, all do."""
    before = bundle([FOR_GPU], here=OLD_CPU)
    upload(store, before)
    assert warm_up(store, OLD_CPU, tmp_path / "a").bundles == (before.manifest.bundle,)
    missed = warm_up(store, NEW_CPU, tmp_path / "b")
    assert missed.status == "miss"
    assert "cpu_capability is AVX512 here, AVX2 there" in missed.reason
    assert publish(store, NEW_CPU, FOR_GPU).status == "published"
    shared = manifests(store, SHARED)
    assert warm_up(store, NEW_CPU, tmp_path / "c").bundles == tuple(one.bundle for one in shared)
    assert len(warm_up(store, OLD_CPU, tmp_path / "d").bundles) == 2


def test_bundles_for_any_cpu_have_names_of_their_own() -> None:
    """The same content has one name for all CPUs, and another where it lies with one: no name means two bundles."""
    names = [bundle([FOR_GPU], here=here).manifest.bundle for here in (OLD_CPU, NEW_CPU, SHARED)]
    assert names[0] == names[1] != names[2]


def test_bundle_for_one_cpu_is_not_taken_for_any(store: Store, tmp_path: Path) -> None:
    """A bundle that somebody puts where all CPUs read, and that is for one, is left out by the others."""
    one = bundle([FOR_CPU], here=OLD_CPU).manifest
    Catalog(store, prefix_of(SHARED)).announce(one)
    result = warm_up(store, NEW_CPU, tmp_path)
    assert (result.status, result.bundles) == ("miss", ())
    assert "cpu_capability is AVX512 here, AVX2 there" in result.reason


def test_withdrawn_bundle_for_any_cpu_is_not_loaded(store: Store, tmp_path: Path) -> None:
    """A mark withdraws a bundle from the hosts of all CPUs, and leaves those for one."""
    publish(store, OLD_CPU, FOR_GPU, FOR_CPU)
    (shared,) = manifests(store, SHARED)
    Catalog(store, prefix_of(SHARED)).mark(shared.bundle, "quarantined")
    assert warm_up(store, OLD_CPU, tmp_path / "a").bundles == tuple(one.bundle for one in manifests(store, OLD_CPU))
    assert warm_up(store, NEW_CPU, tmp_path / "b").status == "miss"


def test_signatures_are_asked_of_both(store: Store, tmp_path: Path) -> None:
    """With trusted keys a bundle for any CPU is loaded if it is signed, also by a signature that was added later."""
    key = tmp_path / "key.pem"
    _trust.generate_key(key)
    signer, policy = _trust.load_signer(key), TrustPolicy.read([f"{key}.pub"])
    signed, unsigned = (bundle([graph(TRITON, key=one)], here=SHARED) for one in (FOR_GPU.key, OTHER))
    upload(store, unsigned)
    for chunk in signed.chunks:
        store.create(prefix_of(SHARED).chunk(chunk.ref.digest), chunk.stored)
    Catalog(store, prefix_of(SHARED)).announce(signed.manifest, signer)
    assert warm_up(store, NEW_CPU, tmp_path / "a", policy=policy).bundles == (signed.manifest.bundle,)
    place = prefix_of(SHARED)
    payload = open_envelope(store.read(place.manifest(unsigned.manifest.bundle), size=1 << 20)).payload
    signature = _trust.sign(signer, payload, store.scope)
    store.create(place.signature(unsigned.manifest.bundle, signature.tag(payload)), pack_signatures([signature]))
    assert len(warm_up(store, NEW_CPU, tmp_path / "b", policy=policy).bundles) == 2


def test_explanation_reads_both(store: Store) -> None:
    """A graph that was compiled for another CPU as well is published, for any."""
    publish(store, OLD_CPU, FOR_GPU, FOR_CPU)
    told = Explaining(Places.only(store), NEW_CPU, Session(), [FOR_GPU, FOR_CPU]).run()
    assert (told.status, [miss.key for miss in told.misses]) == ("graphs", [OTHER])


def test_requests(moto_server: MotoServer, compiler: Compiler, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A GPU's warm start lists twice; what is for the GPU alone is published in one place, and no news is free."""
    url, options = f"{moto_server.server.url}/{name}", moto_server.server.storage_options
    monkeypatch.setattr(_compiler, "current_environment", lambda *_: NEW_CPU)
    cache = Cache(url, storage_options=options)

    def requests(result: PublishResult | WarmResult, status: str) -> list[str]:
        assert result.status == status, result
        made = [
            "LIST" if "list-type=2" in line else f"{line.split(' ')[0]} {line.split('/')[-2]}"
            for line in moto_server.requests()
        ]
        moto_server.forget()
        return sorted(made)

    moto_server.forget()
    compiler.recorded = compiled(NEW_CPU, FOR_GPU)
    in_turn = ["DELETE bundles", "LIST", "LIST", "PUT bundles", "PUT bundles", "PUT chunks"]
    assert requests(cache.publish(), "published") == in_turn
    assert requests(cache.publish(), "unchanged") == []
    forget()
    assert requests(cache.warm(), "loaded") == ["GET bundles", "GET chunks", "LIST", "LIST"]
    compiler.recorded = compiled(NEW_CPU, FOR_GPU, FOR_CPU, files=[UTILS, LIBRARY])
    assert requests(cache.publish(), "published").count("LIST") == 4
    forget()
    made = requests(cache.warm(), "loaded")
    assert [made.count(one) for one in ("LIST", "GET bundles")] == [2, 3]


def test_hosts_of_one_gpu_wait_for_each_other(
    compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of two kinds of hosts that find nothing, one compiles what serves both; a lease of the other is one for it."""
    here = {"environment": OLD_CPU}
    monkeypatch.setattr(_compiler, "current_environment", lambda *_: here["environment"])
    first = Cache(str(tmp_path))
    assert first.warm(wait=30).reason.endswith("this process compiles for the others, which wait")
    (lease,) = tmp_path.glob("*/*/bundles/lease.*")
    assert lease.parent.parent.name == SHARED.fingerprint
    compiler.recorded = compiled(OLD_CPU, FOR_GPU, FOR_CPU)
    assert first.publish().status == "published"
    here["environment"] = NEW_CPU
    forget()
    assert len(Cache(str(tmp_path)).warm(wait=30).bundles) == 1
