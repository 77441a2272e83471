"""The commands that move or remove: `cp`, `push`, `pull`, `export`, `import`, `rm`."""

import json
import subprocess
import time
from pathlib import Path

import pytest

from megacache._bundle import build_blob, parse_blob
from megacache._catalog import Inventory
from megacache._store import Store
from tests.kit.builders import (
    Bundle,
    artifact,
    artifacts,
    bundle,
    compiled_file,
    environment,
    open_store,
    prefix_of,
    upload,
)
from tests.kit.command import PROGRAM, document, in_child, on_terminal, run
from tests.kit.processes import REPOSITORY, Processes, step
from tests.kit.servers import Server
from tests.kit.servers.moto import MotoServer

GPU = environment(device_type="cuda", device_name="NVIDIA H100 80GB HBM3")
PLACE = prefix_of(environment())
ONE, TWO = bundle([artifact("a")], [artifact("b")], files=[compiled_file()]), bundle([artifact("c")], here=GPU)
OTHER = bundle([artifact("a")], labels={"n": "2"})
"""Shares a chunk with `ONE`."""


@pytest.fixture
def source(tmp_path: Path) -> Store:
    """Open a store on disk with two environments."""
    store = open_store(str(tmp_path / "source"))
    upload(store, ONE, TWO)
    return store


@pytest.fixture
def target(tmp_path: Path) -> Store:
    """Open an empty store on disk."""
    return open_store(str(tmp_path / "target"))


def objects(store: Store) -> dict[str, bytes]:
    """Give all objects of a store."""
    return {entry.key: store.read(entry.key, size=entry.size) for entry in store.list()}


def ids(*bundles: Bundle) -> list[str]:
    """Name bundles, sorted."""
    return sorted(one.manifest.bundle for one in bundles)


def options_file(server: Server, path: Path) -> Path:
    """Write what fsspec needs to reach a server."""
    path.write_text(json.dumps(server.storage_options))
    return path


def test_copy_is_the_same(source: Store, target: Store) -> None:
    """All that is visible arrives byte for byte; a second run finds it there."""
    done = run("cp", source.url, target.url)
    assert done.stdout == ""
    assert f"2 bundles copied to {target.url}, 0 there already; 4 chunks" in done.stderr
    assert objects(target) == objects(source)
    again = document("cp", source.url, target.url)
    assert again == {
        "format": 1,
        "command": "cp",
        "source": source.url,
        "target": target.url,
        "dry_run": False,
        "copied": [],
        "present": again["present"],
        "failed": [],
        "chunks": 0,
        "bytes": 0,
    }
    assert sorted(again["present"]) == ids(ONE, TWO)


def test_dry_run_foresees_the_copy(source: Store, target: Store) -> None:
    """A dry run says what the run will do, what is there already left out, and writes nothing."""
    run("cp", source.url, target.url, "--device", GPU.device)
    before = objects(target)
    foreseen = document("cp", source.url, target.url, "--dry-run")
    assert objects(target) == before
    assert "1 bundle would be copied" in run("cp", source.url, target.url, "--dry-run").stderr
    done = document("cp", source.url, target.url)
    assert (foreseen["copied"], foreseen["present"]) == (ids(ONE), ids(TWO))
    assert {**foreseen, "dry_run": False} == done


def test_one_environment_is_copied(source: Store, target: Store) -> None:
    """With a device or an environment chosen the others stay behind."""
    assert document("cp", source.url, target.url, "--environment", GPU.fingerprint)["copied"] == ids(TWO)
    assert [one.prefix for one in Inventory.of(target).holdings] == [prefix_of(GPU)]


def test_damaged_bundle_is_not_copied(source: Store, target: Store) -> None:
    """A bundle with a damaged chunk stays behind and decides the exit code; the others arrive."""
    key = PLACE.chunk(ONE.chunks[0].ref.digest)
    source.delete(key)
    source.create(key, b"x" * ONE.chunks[0].ref.stored_size)
    found = document("cp", source.url, target.url, code=4)
    assert found["copied"] == ids(TWO)
    assert [(one["bundle"], one["kind"]) for one in found["failed"]] == [(*ids(ONE), "IntegrityError")]
    assert "not copied:" in run("cp", source.url, target.url, code=4).stderr


def test_only_what_is_signed_is_copied(
    source: Store, target: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With trusted keys, named or in the variable, the unsigned stays behind and decides the exit code."""
    key = tmp_path / "staging.pem"
    run("keygen", key)
    run("sign", source.url, *ids(ONE), "--key", key)
    line = ["cp", source.url, target.url, "--trusted-keys", f"{key}.pub"]
    foreseen, found = document(*line, "--dry-run", code=4), document(*line, code=4)
    assert {**foreseen, "dry_run": False} == found
    assert found["copied"] == ids(ONE)
    assert [(one["bundle"], one["kind"]) for one in found["failed"]] == [(*ids(TWO), "UntrustedError")]
    assert [one.prefix for one in Inventory.of(target).holdings] == [PLACE]
    monkeypatch.setenv("MEGACACHE_TRUSTED_KEYS", f"{key}.pub")
    assert document("push", target.url, "--from", source.url, code=4)["failed"] == found["failed"]
    assert document("pull", source.url, "--to", target.url, code=4)["failed"] == found["failed"]


def test_interrupted_removal_is_repaired(source: Store, target: Store) -> None:
    """A copy brings the chunks that what is there already lacks, as a dry run foresees."""
    run("cp", source.url, target.url)
    target.delete(PLACE.chunk(ONE.chunks[0].ref.digest))
    foreseen, found = document("cp", source.url, target.url, "--dry-run"), document("cp", source.url, target.url)
    assert (foreseen["chunks"], sorted(foreseen["present"])) == (1, ids(ONE, TWO))
    assert (found["chunks"], sorted(found["present"])) == (1, ids(ONE, TWO))
    assert objects(target) == objects(source)


def test_copy_of_nothing_is_refused(source: Store, target: Store, tmp_path: Path) -> None:
    """An empty source, a source that is the target, or an environment that is not there copies nothing."""
    assert "the folder does not exist" in run("cp", tmp_path / "none", target.url, code=2).stderr
    same = f"source and target are the same place, {source.scope}; name another"
    assert same in run("cp", source.url, source.url, code=2).stderr
    run("cp", source.url, target.url, "--environment", "zzzz", code=2)
    assert objects(target) == {}


def test_push_and_pull_know_the_default_store(
    source: Store, target: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the local side is not named it is the store in the user's cache folder, whatever MEGACACHE_URL says."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MEGACACHE_URL", str(tmp_path / "elsewhere"))
    assert document("pull", source.url)["target"] == f"file://{tmp_path}/home/megacache/store"
    assert sorted(document("push", target.url)["copied"]) == ids(ONE, TWO)
    assert objects(target) == objects(source)


@pytest.mark.parametrize(
    "line",
    [
        ["cp", "{source}", "{target}"],
        ["push", "{target}", "--from", "{source}"],
        ["rm", "{source}", "--all", "--yes"],
        ["import", "{target}", "{blob}"],
    ],
)
def test_read_only_is_honoured(
    source: Store, target: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, line: list[str]
) -> None:
    """Where publishing is switched off, commands that would change a shared cache refuse."""
    monkeypatch.setenv("MEGACACHE_READ_ONLY", "1")
    blob = tmp_path / "blob"
    blob.write_bytes(build_blob([artifact()]))
    before = objects(source)
    words = [word.format(source=source.url, target=target.url, blob=blob) for word in line]
    assert "MEGACACHE_READ_ONLY is set" in run(*words, code=2).stderr
    assert (objects(source), objects(target)) == (before, {})


def test_copy_goes_from_s3_to_gcs_to_a_folder(
    source: Store, moto_s3: Server, gcs_server: Server, name: str, tmp_path: Path
) -> None:
    """What was pushed to S3 is copied to GCS, pulled to a folder, and sound there."""
    s3, gcs, target = f"{moto_s3.url}/{name}/v1", f"{gcs_server.url}/{name}/v1", open_store(str(tmp_path / "target"))
    s3_options = options_file(moto_s3, tmp_path / "s3.json")
    gcs_options = options_file(gcs_server, tmp_path / "gcs.json")
    run("push", s3, "--from", source.url, "--storage-options", s3_options)
    document("cp", s3, gcs, "--source-options", s3_options, "--target-options", gcs_options)
    run("pull", gcs, "--to", target.url, "--storage-options", gcs_options)
    assert objects(target) == objects(source)
    assert document("verify", gcs, "--storage-options", gcs_options)["sound"] is True


def test_killed_copy_is_taken_up(source: Store, faulty: MotoServer, name: str, tmp_path: Path) -> None:
    """After `kill -9` only whole bundles are visible; the next run copies what is missing, and all is sound then."""
    url, options = f"{faulty.server.url}/{name}", options_file(faulty.server, tmp_path / "s3.json")
    held = TWO.chunks[0].ref.digest.hex
    faulty.forget()
    faulty.fault(f"PUT .*{held}", "hang")
    child = subprocess.Popen(
        [*PROGRAM, "cp", source.url, url, "--target-options", str(options)], cwd=REPOSITORY, stderr=subprocess.DEVNULL
    )
    wait_for(faulty, f"{PLACE.manifest(ONE.manifest.bundle)}", held)
    child.kill()
    assert child.wait(60) == -9
    faulty.heal()
    listed = document("ls", url, "--no-here", "--storage-options", options)
    assert TWO.manifest.bundle not in json.dumps(listed)
    taken_up = document("cp", source.url, url, "--target-options", options)
    assert taken_up["chunks"] == 1
    assert sorted([*taken_up["copied"], *taken_up["present"]]) == ids(ONE, TWO)
    assert document("verify", url, "--storage-options", options)["sound"] is True


def wait_for(server: MotoServer, *parts: str) -> None:
    """Wait until requests were made for all these keys."""
    deadline = time.monotonic() + 120
    while not all(any(line.startswith("PUT") and part in line for line in server.requests()) for part in parts):
        assert time.monotonic() < deadline, server.requests()
        time.sleep(0.02)


def test_export_writes_one_blob(source: Store, tmp_path: Path) -> None:
    """The file holds the artifacts of one environment in PyTorch's form, and says what it leaves behind."""
    upload(source, OTHER)
    file = tmp_path / "blob"
    file.write_bytes(b"an older one")
    done = run("export", source.url, file, "--environment", PLACE.fingerprint)
    assert sorted(one.key for one in parse_blob(file.read_bytes())) == ["a", "b"]
    assert "2 inductor" in done.stderr
    assert "1 compiled file left out" in done.stderr
    found = document("export", source.url, file, "--environment", PLACE.fingerprint)
    assert found == {
        "format": 1,
        "command": "export",
        "url": source.url,
        "file": str(file),
        "device": PLACE.device,
        "fingerprint": PLACE.fingerprint,
        "bytes": file.stat().st_size,
        "artifacts": {"inductor": 2},
        "bundles": found["bundles"],
        "failed": [],
        "files_left_out": 1,
    }
    assert sorted(found["bundles"]) == ids(ONE, OTHER)
    assert list(tmp_path.glob(".blob*")) == []


def test_export_asks_for_one_environment(source: Store, tmp_path: Path) -> None:
    """Where there are several, or none, nothing is written and the choice is told."""
    told = run("export", source.url, tmp_path / "blob", code=2).stderr
    assert PLACE.path in told
    assert "choose one with --environment or --mine" in told
    run("export", tmp_path / "none", tmp_path / "blob", code=2)
    assert "its folder does not exist" in run("export", source.url, tmp_path / "no" / "blob", code=2).stderr
    assert not (tmp_path / "blob").exists()


def test_export_leaves_out_what_is_damaged(target: Store, tmp_path: Path) -> None:
    """The blob holds what can be used, and the exit code says that it is not all; of nothing no file is written."""
    upload(target, bundle([artifact("good")]))
    target.create(PLACE.manifest("a" * 32), b"garbage")
    found = document("export", target.url, tmp_path / "blob", code=4)
    assert [(one["bundle"], one["kind"]) for one in found["failed"]] == [("a" * 32, "FormatError")]
    assert [one.key for one in parse_blob((tmp_path / "blob").read_bytes())] == ["good"]
    target.delete(PLACE.manifest(bundle([artifact("good")]).manifest.bundle))
    assert "can be used" in run("export", target.url, tmp_path / "other", code=4).stderr
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    ("content", "label", "told"),
    [
        (b"no blob", "a=b", "not a blob of PyTorch's"),
        (build_blob([artifact(kind="precompile")]), "a=b", "no artifact that a reader would accept"),
        (build_blob([artifact()]), "a", "write NAME=VALUE"),
        (build_blob([artifact()]), "=b", "write NAME=VALUE"),
    ],
)
def test_import_refuses_what_is_wrong(target: Store, tmp_path: Path, content: bytes, label: str, told: str) -> None:
    """What is no blob, holds nothing of use or has a wrong label is not published."""
    (tmp_path / "blob").write_bytes(content)
    assert told in run("import", target.url, tmp_path / "blob", "--label", label, code=2).stderr
    assert objects(target) == {}


def test_plain_torch_reads_an_export_and_its_blob_is_imported(processes: Processes, tmp_path: Path) -> None:
    """Plain PyTorch hits what `export` wrote, and a warm start hits what `import` published of plain PyTorch's blob."""
    published, imported = tmp_path / "published", tmp_path / "imported"
    exported, saved = tmp_path / "exported", tmp_path / "saved"
    cold = processes.run(
        step("run", model="doubling"),
        step("publish", url=str(published)),
        step("save_plainly", path=str(saved)),
    )[0]
    assert document("export", published, exported)["files_left_out"] > 0
    _, ran = processes.run(step("load_plainly", path=str(exported)), step("run", model="doubling"))
    assert (ran["fx_hit"], ran["fx_miss"], ran["digest"]) == (1, 0, cold["digest"])
    done = in_child("import", imported, saved, "--label", "from=torch", "--json")
    result = json.loads(done.stdout)
    assert done.returncode == 0, done.stderr
    assert result.keys() == {
        *("format", "command", "url", "status", "reason", "bundle", "artifacts", "bytes_stored", "warnings"),
    }
    assert (result["status"], result["artifacts"]["inductor"]) == ("published", 1)
    assert document("inspect", imported)["labels"] == {"from": "torch"}
    _, ran = processes.run(step("warm", url=str(imported)), step("run", model="doubling"))
    assert (ran["fx_hit"], ran["fx_miss"], ran["digest"]) == (1, 0, cold["digest"])


def test_import_that_is_refused_is_no_success(tmp_path: Path, faulty: MotoServer, name: str) -> None:
    """Where the store refuses to be written, `import` exits with 3, as a document and in words."""
    (tmp_path / "blob").write_bytes(build_blob([artifact()]))
    options = options_file(faulty.server, tmp_path / "s3.json")
    faulty.fault("PUT", "403")
    line = ["import", f"{faulty.server.url}/{name}", tmp_path / "blob", "--storage-options", options, "--json"]
    done = in_child(*line)
    assert done.returncode == 3, done.stderr
    assert json.loads(done.stdout)["status"] == "read_only"


def test_dry_run_removes_nothing(source: Store) -> None:
    """A dry run shows what would go, and all stays."""
    before = objects(source)
    done = run("rm", source.url, "--all", "--dry-run")
    assert PLACE.path in done.stdout
    assert "removed" not in done.stderr
    found = document("rm", source.url, "--all", "--dry-run")
    assert found.keys() == {"format", "command", "url", "dry_run", "removed"}
    assert found["dry_run"] is True
    assert found["removed"][1] == {
        "device": PLACE.device,
        "fingerprint": PLACE.fingerprint,
        "bundles": ids(ONE),
        "chunks": 3,
        "bytes": sum(len(data) for key, data in before.items() if key.startswith(PLACE.path)),
        "chunks_kept": 0,
    }
    assert objects(source) == before


def test_named_bundle_is_removed(source: Store) -> None:
    """A bundle goes by the beginning of its id, with the chunks that no other needs."""
    upload(source, OTHER)
    (removed,) = document("rm", source.url, ONE.manifest.bundle[:10], "--yes")["removed"]
    assert (removed["bundles"], removed["chunks"]) == (ids(ONE), 2)
    assert sorted(one for holding in Inventory.of(source).holdings for one in holding.manifests) == ids(TWO, OTHER)
    assert document("verify", source.url)["sound"] is True


@pytest.mark.parametrize(
    ("chosen", "left"), [(["--all"], []), (["--device", GPU.device], ids(ONE)), (["--environment", "{own}"], ids(TWO))]
)
def test_environments_are_removed(source: Store, chosen: list[str], left: list[str]) -> None:
    """All, a device or an environment goes, and nothing else does."""
    words = [word.format(own=PLACE.fingerprint) for word in chosen]
    assert f"removed from {source.url}" in run("rm", source.url, *words, "--yes").stderr
    assert [one for holding in Inventory.of(source).holdings for one in holding.manifests] == left


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ([], "no bundle or environment is named"),
        ([""], "'' does not name a bundle"),
        (["zzzz"], "holds no bundle zzzz"),
        ([ONE.manifest.bundle, "zzzz"], "holds no bundle zzzz"),
        ([ONE.manifest.bundle, "--device", GPU.device], "holds no bundle"),
        ([ONE.manifest.bundle, "--all"], "--all contradicts"),
        (["--environment", ""], "does not name an environment"),
        (["--environment", ONE.manifest.bundle], "holds no environment of"),
        (["--device", "", "--all"], "--all contradicts"),
        (["--device", ""], "holds no environment of"),
    ],
)
def test_wrong_name_removes_nothing(source: Store, line: list[str], told: str) -> None:
    """A name that is empty, wrong or beside the rest of the line removes nothing, even of what was named right."""
    before = objects(source)
    assert told in run("rm", source.url, *line, "--yes", code=2).stderr
    assert objects(source) == before


def test_nobody_to_ask_is_no_consent(source: Store) -> None:
    """Off a terminal nothing goes without `--yes`, whatever is piped in."""
    before = objects(source)
    assert "give --yes" in run("rm", source.url, "--all", code=2, typed="y\n").stderr
    assert objects(source) == before


@pytest.mark.parametrize(("typed", "code", "left"), [(b"n\n", 1, 2), (b"\x04", 130, 2), (b"y\n", 0, 0)])
def test_consent_is_asked_for(source: Store, typed: bytes, code: int, left: int) -> None:
    """On a terminal the answer decides, and no answer is no consent."""
    ended, shown = on_terminal("rm", source.url, "--all", typed=typed)
    assert f"Remove 2 bundles, {shown.partition('2 bundles, ')[2].partition(',')[0]}, from {source.url}" in shown
    assert (ended, len(Inventory.of(source).holdings)) == (code, left)


def test_removal_from_nothing_says_so(target: Store) -> None:
    """Where nothing is published there is nothing to ask about."""
    assert "nothing is published" in run("rm", target.url, "--all").stderr
    assert document("rm", target.url, "--all")["removed"] == []


def test_unreadable_bundle_can_be_removed(target: Store) -> None:
    """A manifest that nobody can read goes by its name, and keeps nothing alive."""
    upload(target, bundle(artifacts(2)))
    target.create(PLACE.manifest("a" * 32), b"garbage")
    run("rm", target.url, "aaaaaaaa", "--yes")
    assert document("verify", target.url)["sound"] is True
