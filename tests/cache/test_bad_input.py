"""Whatever is wrong with a store, a warm start says so and goes on cold."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from megacache._bundle import Artifact, CompiledFile
from tests.kit.damage import DAMAGES, add_bundle, manifest_path
from tests.kit.processes import Answer, Processes, step
from tests.kit.servers import Server
from tests.kit.servers.moto import MotoServer

UNTOUCHED = {"fxgraph": 0, "aotautograd": 0}
KEY = "a" + "b" * 51
HOSTILE = {
    "inductor": Artifact(kind="inductor", key="../../../escaped", content=b"x"),
    "autotune": Artifact(kind="autotune", key="../../escaped.best_config", content=b"{}"),
    "absolute": Artifact(kind="autotune", key="/tmp/escaped.best_config", content=b"{}"),
    "precompile": Artifact(kind="precompile", key="f" * 64, content=b"x"),
}


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> Path:
    """Publish one real bundle."""
    store = tmp_path_factory.mktemp("published") / "store"
    Processes(tmp_path_factory.mktemp("cold"), probes).run(
        step("run", model="doubling"), step("publish", url=str(store))
    )
    return store


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory, probes: Path, published: Path) -> dict[str, list[Answer]]:
    """Warm one process from a copy for each kind of damage, alone and beside a good bundle."""
    folder = tmp_path_factory.mktemp("damaged")
    steps = []
    for number, (damage, *_) in enumerate(DAMAGES.values()):
        alone = shutil.copytree(published, folder / f"{number}")
        damage(alone)
        steps += [step("warm", url=str(alone)), step("artifacts_on_disk")]
    answers = Processes(tmp_path_factory.mktemp("warm"), probes).run(*steps)
    return {name: list(answers[2 * n : 2 * n + 2]) for n, name in enumerate(DAMAGES)}


@pytest.mark.parametrize("name", DAMAGES)
def test_damage_is_told_and_nothing_reaches_torch(name: str, damaged: dict[str, list[Answer]]) -> None:
    """Each kind of damage has its status, its error and a reason that names it, and leaves torch's caches empty."""
    _, status, error, reason = DAMAGES[name]
    warmed, on_disk = damaged[name]
    assert (warmed["status"], warmed["error"] or "") == (status, error)
    assert reason.format(torch=torch.__version__) in warmed["reason"]
    assert warmed["info"] == warmed["artifacts"] == {}
    assert on_disk == UNTOUCHED


@pytest.mark.parametrize("kind", HOSTILE)
def test_hostile_artifact_is_untrusted_and_good_bundles_still_load(
    kind: str, published: Path, processes: Processes, tmp_path: Path
) -> None:
    """A bundle with an artifact that no PyTorch writes is refused whole; the good one beside it still loads."""
    store = shutil.copytree(published, tmp_path / "store")
    good = manifest_path(store).stem
    bad = add_bundle(store, HOSTILE[kind], Artifact(kind="aot_autograd", key=KEY, content=b"harmless"))
    alone = shutil.copytree(store, tmp_path / "alone")
    manifest_path_of(alone, good).unlink()
    refused, on_disk, beside, ran = processes.run(
        step("warm", url=str(alone)),
        step("artifacts_on_disk"),
        step("warm", url=str(store)),
        step("run", model="doubling"),
    )
    assert (refused["status"], refused["error"], refused["info"]) == ("untrusted", "UntrustedError", {})
    assert on_disk == UNTOUCHED
    assert (beside["status"], beside["bundles"]) == ("loaded", [good])
    assert bad in "".join(beside["warnings"])
    assert (ran["fx_hit"], ran["aot_hit"]) == (1, 1)
    assert not list(tmp_path.rglob("escaped*"))


@pytest.mark.parametrize("path", ["../../escaped.so", "/tmp/escaped.so", "ab/escaped.py", "ab/.escaped.so"])
def test_hostile_file_is_untrusted_and_never_written(
    path: str, published: Path, processes: Processes, tmp_path: Path
) -> None:
    """A bundle with a file that leads elsewhere, or that no compiler writes, is refused whole."""
    store = shutil.copytree(published, tmp_path / "store")
    good = manifest_path(store).stem
    file = CompiledFile(root="inductor", path=path, mode=0o755, content=b"x")
    add_bundle(store, Artifact(kind="aot_autograd", key=KEY, content=b"harmless"), files=[file])
    manifest_path_of(store, good).unlink()
    refused, on_disk = processes.run(step("warm", url=str(store)), step("artifacts_on_disk"))
    assert (refused["status"], refused["error"], refused["files"]) == ("untrusted", "UntrustedError", 0)
    assert on_disk == UNTOUCHED
    assert not [*tmp_path.rglob("*escaped*"), *Path("/tmp").glob("*escaped*")]


def test_damaged_bundle_is_published_anew(published: Path, processes: Processes, tmp_path: Path) -> None:
    """A process that found its bundle damaged compiles, publishes under another name, and the next one is warm."""
    store = shutil.copytree(published, tmp_path / "store")
    DAMAGES["flipped chunk"][0](store)
    warmed, _, again = processes.run(
        step("warm", url=str(store)), step("run", model="doubling"), step("publish", url=str(store))
    )
    assert (warmed["status"], again["status"]) == ("unavailable", "published")
    _, ran = processes.run(step("warm", url=str(store)), step("run", model="doubling"))
    assert (ran["fx_hit"], ran["aot_hit"]) == (1, 1)


def test_withdrawn_bundle_is_left_out_and_published_anew(published: Path, processes: Processes, tmp_path: Path) -> None:
    """A quarantined bundle is read by nobody, and does not keep the same model from being published again."""
    store = shutil.copytree(published, tmp_path / "store")
    manifest_path(store).with_suffix(".quarantined").touch()
    warmed, _, again, once_more = processes.run(
        step("warm", url=str(store)),
        step("run", model="doubling"),
        step("publish", url=str(store)),
        step("warm", url=str(store)),
    )
    assert (warmed["status"], again["status"]) == ("miss", "published")
    assert once_more["bundles"] == [again["bundle"]]


def manifest_path_of(store: Path, bundle: str) -> Path:
    """Find the manifest of one bundle."""
    (path,) = store.glob(f"*/*/bundles/{bundle}.msgpack")
    return path


def answers_for(processes: Processes, **options: object) -> Sequence[Answer]:
    """Warm, run, publish, and warm again in strict mode, against one store."""
    return processes.run(
        step("warm", **options),
        step("run", model="doubling"),
        step("publish", **options),
        step("warm", strict=True, **options),
    )


def test_unknown_protocol(processes: Processes) -> None:
    """A URL that nothing speaks is unavailable for both verbs, and an exception in strict mode only."""
    warmed, _, published, strict = answers_for(processes, url="nonsense://bucket/x")
    for answer in (warmed, published):
        assert (answer["status"], answer["error"]) == ("unavailable", "SettingsError")
        assert "nonsense" in answer["reason"]
    assert strict["raised"] == "SettingsError"


def test_missing_extra_is_named(processes: Processes, tmp_path: Path) -> None:
    """Without s3fs, the reason gives the command that installs it."""
    (tmp_path / "s3fs.py").write_text("raise ModuleNotFoundError(\"No module named 's3fs'\", name='s3fs')\n")
    (warmed,) = processes.run(step("warm", url="s3://bucket/x"), environment={"PYTHONPATH": str(tmp_path)})
    assert warmed["status"] == "unavailable"
    assert 'pip install "megacache[s3]"' in warmed["reason"]


def test_missing_bucket(moto_server: MotoServer, processes: Processes) -> None:
    """A bucket that is not there is a fault, not a miss."""
    options = moto_server.server.storage_options
    warmed, _, published, strict = answers_for(processes, url="s3://never-made/x", storage_options=options)
    for answer in (warmed, published):
        assert (answer["status"], answer["error"]) == ("unavailable", "MissingError")
        assert "create the bucket" in answer["reason"]
    assert strict["raised"] == "MissingError"


def test_refused_credentials(faulty: MotoServer, processes: Processes, name: str) -> None:
    """A server that answers 403 to everything is unavailable, and the reason speaks of credentials."""
    server = faulty.server
    faulty.fault(name, "403")
    warmed, _, published, strict = answers_for(
        processes, url=f"{server.url}/{name}", storage_options=server.storage_options
    )
    for answer in (warmed, published):
        assert (answer["status"], answer["error"]) == ("unavailable", "AccessError")
        assert "credentials" in answer["reason"]
    assert strict["raised"] == "AccessError"


def test_wrong_secret(radosgw_server: Server, processes: Processes, name: str) -> None:
    """A server that checks signatures refuses another secret."""
    options = {**radosgw_server.storage_options, "secret": "wrong"}
    (warmed,) = processes.run(step("warm", url=f"{radosgw_server.url}/{name}", storage_options=options))
    assert (warmed["status"], warmed["error"]) == ("unavailable", "AccessError")


def test_refused_write_is_read_only(faulty: MotoServer, processes: Processes, name: str) -> None:
    """Credentials that may read but not write make a publication `read_only`."""
    server = faulty.server
    faulty.fault(f"PUT .*{name}", "403")
    _, _, published, _ = answers_for(processes, url=f"{server.url}/{name}", storage_options=server.storage_options)
    assert (published["status"], published["error"]) == ("read_only", "AccessError")


def test_failing_server(faulty: MotoServer, processes: Processes, name: str) -> None:
    """A server that answers 503 is unavailable; the model runs all the same."""
    server = faulty.server
    faulty.fault(name, "503")
    warmed, ran, published, strict = answers_for(
        processes, url=f"{server.url}/{name}", storage_options=server.storage_options
    )
    assert ran["fx_miss"] == 1
    for answer in (warmed, published):
        assert (answer["status"], answer["error"]) == ("unavailable", "UnavailableError")
    assert strict["raised"] == "UnavailableError"


def test_silent_server_costs_the_timeout_and_the_process_ends(
    faulty: MotoServer, processes: Processes, name: str
) -> None:
    """A server that never answers costs what was allowed; the process goes on, and exits while it is still silent."""
    server = faulty.server
    faulty.fault(name, "hang")
    warmed, ran, published, strict = answers_for(
        processes, url=f"{server.url}/{name}", storage_options=server.storage_options, timeout=2.0
    )
    assert ran["fx_miss"] == 1
    for answer in (warmed, published):
        assert (answer["status"], answer["error"]) == ("unavailable", "DeadlineError")
        assert "within 2 s" in answer["reason"]
    assert strict["raised"] == "DeadlineError"


def test_unwritable_cache_folder(published: Path, processes: Processes, tmp_path: Path) -> None:
    """A cache folder that cannot be made is told before anything is downloaded."""
    (tmp_path / "file").touch()
    (warmed,) = processes.run(step("warm", url=str(published)), folder=tmp_path / "file" / "cache")
    assert (warmed["status"], warmed["error"]) == ("unavailable", "CompilerError")
    assert str(tmp_path / "file") in warmed["reason"]


def test_bad_arguments_are_results_too(processes: Processes, tmp_path: Path) -> None:
    """A timeout or a label that makes no sense does not stop the program, unless strict."""
    url = str(tmp_path / "store")
    warmed, published, strict = processes.run(
        step("warm", url=url, timeout=0),
        step("publish", url=url, labels={"n": 1}),
        step("warm", url=url, timeout=-1, strict=True),
    )
    assert (warmed["status"], warmed["error"]) == ("unavailable", "SettingsError")
    assert (published["status"], published["error"]) == ("unavailable", "SettingsError")
    assert strict["raised"] == "SettingsError"
