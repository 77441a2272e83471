"""What has proved harmful is taken out of service: one bundle by a mark."""

from pathlib import Path

import pytest
from click.testing import CliRunner
from torch._inductor.codecache import sha256_hash

from megacache._bundle import QUARANTINED, Artifact, Manifest
from megacache._cache.crash_guard import CrashGuard
from megacache._catalog import Catalog
from megacache._cli.app import app
from megacache._store import Store
from tests.kit.builders import (
    Bundle,
    artifact,
    bundle,
    compiled_file,
    environment,
    open_store,
    upload,
    warm_up,
)
from tests.kit.processes import Processes, step


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Open an empty store on disk."""
    return open_store((tmp_path / "store").as_uri())


def invoke(*arguments: str) -> tuple[int, str]:
    """Run a command; give its exit code and what it printed."""
    done = CliRunner().invoke(app, arguments)
    return done.exit_code, done.output


def test_quarantine_hides_a_bundle_until_it_is_lifted(store: Store, tmp_path: Path) -> None:
    """A quarantined bundle is not visible to readers; the mark can be set and lifted again and again."""
    one, other = bundle([artifact("a")]), bundle([artifact("b")])
    upload(store, one, other)
    url, name = str(tmp_path / "store"), one.manifest.bundle
    catalog = Catalog.of(store, environment())
    for _ in range(2):
        code, told = invoke("quarantine", url, name[:8])
        assert (code, "out of service" in told) == (0, True)
        assert catalog.list().visible.keys() == {other.manifest.bundle}
    for _ in range(2):
        assert invoke("quarantine", url, name, "--lift")[0] == 0
        assert catalog.list().visible.keys() == {one.manifest.bundle, other.manifest.bundle}


@pytest.fixture
def local(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make a cache folder for PyTorch in this process."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "local"))
    return tmp_path / "local"


def fill(local: Path, *, content: bytes = b"poison") -> set[Path]:
    """Put a graph, a profile and a library where PyTorch keeps them; give their paths."""
    graph = local / "fxgraph" / "gr" / "fgraph" / sha256_hash(content)
    paths = [graph, local / "dynamo" / "code_state_k.pkl", local / "ab" / "library.so"]
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
    return set(paths)


def left(local: Path) -> set[Path]:
    """Give the files that are left, without megacache's own."""
    return {path for path in local.rglob("*") if path.is_file() and "megacache" not in path.parts}


def start(store: Store, local: Path) -> None:
    """Warm a process of its own in that folder."""
    warm_up(store, environment(), local / "megacache" / "starts")


def poison(content: bytes = b"poison") -> Bundle:
    """Make a bundle with a graph, a profile and a library."""
    graph, profile = (
        Artifact(kind=kind, key=key, content=content) for kind, key in (("inductor", "fgraph"), ("pgo", "k"))
    )
    return bundle([graph, profile], files=[compiled_file(content=content)])


def test_quarantined_bundle_leaves_the_local_cache_once(store: Store, local: Path) -> None:
    """What it left there is removed by the first start that sees the mark, and nothing that was compiled since."""
    one = poison()
    upload(store, one)
    Catalog.of(store, environment()).mark(one.manifest.bundle, QUARANTINED)
    beside = {path for path in fill(local, content=b"sound") if path.parent.name == "fgraph"}
    poisoned = fill(local)
    start(store, local)
    assert left(local) == beside
    fill(local)
    start(store, local)
    assert left(local) == beside | poisoned


@pytest.mark.nightly
def test_host_that_never_publishes_is_cold_once(processes: Processes, tmp_path: Path) -> None:
    """After a quarantine it compiles anew, and then it goes on from what it has compiled itself."""
    url, folder = str(tmp_path / "store"), processes.new_folder()
    *_, published = processes.run(step("run", model="doubling"), step("publish", url=url))
    steps = step("warm", url=url), step("run", model="doubling")
    misses = [processes.run(*steps, folder=folder)[1]["fx_miss"]]
    assert invoke("quarantine", url, published["bundle"])[0] == 0
    misses += [processes.run(*steps, folder=folder)[1]["fx_miss"] for _ in range(2)]
    assert misses == [0, 1, 0]


def test_what_only_bears_the_name_of_a_quarantined_artifact_stays(store: Store, local: Path) -> None:
    """A profile, a library and a graph with other content are this host's own, even before the first start."""
    one = poison()
    upload(store, one)
    Catalog.of(store, environment()).mark(one.manifest.bundle, QUARANTINED)
    sound = fill(local, content=b"sound")
    start(store, local)
    assert left(local) == sound


def test_quarantined_bundles_are_read_once_and_within_bounds(
    store: Store, local: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their manifests cost a start nothing once they have been read, and never more than what all may cost."""
    bundles = [bundle([artifact(str(n))]) for n in range(5)]
    upload(store, *bundles)
    for one in bundles:
        Catalog.of(store, environment()).mark(one.manifest.bundle, QUARANTINED)
    read: list[str] = []
    read_one = Catalog.read_one

    def noted(catalog: Catalog, name: str, size: int) -> Manifest:
        read.append(name)
        return read_one(catalog, name, size)

    monkeypatch.setattr(Catalog, "read_one", noted)
    monkeypatch.setattr("megacache._catalog.limits.MAX_BUNDLES", 3)
    for count in (3, 5, 5):
        start(store, local)
        assert len(read) == len(set(read)) == count


def test_bundle_that_is_loaded_again_is_cleared_again(tmp_path: Path) -> None:
    """The note that a bundle left the local cache ends when its quarantine is lifted and it is loaded."""
    guard, one = CrashGuard(tmp_path / "starts"), bundle([artifact("a")]).manifest
    guard.notes.note(one.bundle)
    assert CrashGuard(tmp_path / "starts").notes.is_cleared(one.bundle)
    guard.add([one])
    assert not CrashGuard(tmp_path / "starts").notes.is_cleared(one.bundle)


def test_unknown_bundle_is_told(store: Store, tmp_path: Path) -> None:
    """A bundle that is not there is not marked."""
    upload(store, bundle([artifact()]))
    before = store.list()
    assert invoke("quarantine", str(tmp_path / "store"), "ffff")[0] == 2
    assert store.list() == before
