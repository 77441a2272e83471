"""The commands that read: `ls`, `inspect`, `verify`, `explain`, `env`."""

import dataclasses
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from megacache._bundle import Digest, seal
from megacache._catalog import Catalog
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
from tests.kit.command import document, in_child, on_terminal, run
from tests.kit.servers.moto import MotoServer

GPU = environment(device_type="cuda", device_name="NVIDIA H100 80GB HBM3")
HERE = environment()
PLACE = prefix_of(HERE)
EVIL = "[red]x[/red]\x1b[31m\r\n\x07\u202e"


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """Open an empty store on disk."""
    return open_store(str(tmp_path / "store"))


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """Write what `env --json` says on the machine that `HERE` stands for."""
    return told_by(tmp_path / "here.json", {"facts": dict(HERE.facts), "recorded": {}, "compiled_files": {"libc": "1"}})


def told_by(path: Path, fields: Mapping[str, object]) -> Path:
    """Write a document in the form of `env --json`."""
    path.write_text(json.dumps({"format": 1, "command": "env", **fields}))
    return path


def ls(store: Store, *options: str) -> Any:
    """List a store as JSON."""
    return document("ls", store.url, "--no-here", *options)


def forge(store: Store, one: Bundle, **changes: Any) -> None:
    """Publish a bundle whose manifest says what no publisher would."""
    for chunk in one.chunks:
        store.create(PLACE.chunk(chunk.ref.digest), chunk.stored)
    store.create(PLACE.manifest(one.manifest.bundle), seal(dataclasses.replace(one.manifest, **changes)))


def test_ls_lists_environments(store: Store) -> None:
    """Each environment has a line with its device, fingerprint, counts, size and age."""
    upload(
        store, bundle(artifacts(3), files=[compiled_file()]), bundle([artifact("b")]), bundle([artifact()], here=GPU)
    )
    heading, first, second = run("ls", store.url, "--no-here").stdout.splitlines()
    assert heading.split() == ["DEVICE", "ENVIRONMENT", "BUNDLES", "ARTIFACTS", "FILES", "SIZE", "NEWEST"]
    assert first.split()[:5] == ["nvidia-h100-80gb-hbm3", GPU.fingerprint, "1", "1", "0"]
    assert second.split()[:5] == ["some-device-name", HERE.fingerprint, "2", "4", "1"]
    assert second.endswith(" s")


def test_ls_lists_bundles(store: Store) -> None:
    """With `--bundles` each bundle has a line with its artifacts by kind, its marks and its labels."""
    one = bundle([artifact(), artifact(kind="pgo", key="job")], labels={"commit": "4d16e21"})
    upload(store, one)
    store.create(PLACE.mark(one.manifest.bundle, "quarantined"), b"")
    line = run("ls", store.url, "--no-here", "--bundles").stdout.splitlines()[1]
    assert one.manifest.bundle[:12] in line
    assert "1 inductor, 1 pgo" in line
    assert line.endswith("quarantined commit=4d16e21")


def test_ls_is_a_document(store: Store) -> None:
    """The JSON of `ls` names every field of environments and bundles, and what is not megacache's."""
    one = bundle([artifact()], labels={"commit": "4d16e21"})
    upload(store, one)
    store.create("notes.txt", b"mine")
    found = ls(store)
    (view,) = found["environments"]
    (listed,) = view.pop("bundles")
    assert found["strangers"] == ["notes.txt"]
    assert found["url"] == store.url
    assert view.keys() == {"device", "fingerprint", "bytes", "chunks", "here"}
    assert (view["device"], view["chunks"], view["here"]) == ("some-device-name", 1, None)
    assert view["bytes"] == sum(entry.size for entry in store.list()) - 4
    assert listed.pop("age_seconds") >= 0
    assert listed == {
        "bundle": one.manifest.bundle,
        "created": one.manifest.created,
        "producer": one.manifest.producer,
        "artifacts": {"inductor": 1},
        "files": 0,
        "bytes_stored": len(one.chunks[0].stored),
        "bytes_raw": one.chunks[0].ref.raw_size,
        "parents": [],
        "labels": {"commit": "4d16e21"},
        "marks": [],
        "fault": None,
    }


def test_ls_of_nothing_says_so(store: Store) -> None:
    """An empty cache is no fault; nothing goes to stdout."""
    done = run("ls", store.url, "--no-here")
    assert done.stdout == ""
    assert f"nothing is published under {store.url}" in done.stderr
    assert ls(store)["environments"] == []


def test_ls_lists_others_beside_a_hostile_manifest(store: Store) -> None:
    """A manifest that is garbage, is too large for its name or lies of its age is told, and hides no other."""
    good, odd = bundle([artifact("good")]), bundle([artifact("odd")])
    upload(store, good)
    forge(store, odd, created="9" * 50, producer=EVIL, labels={EVIL: EVIL})
    store.create(PLACE.manifest("a" * 32), b"garbage")
    store.create(PLACE.manifest("b" * 32), seal(good.manifest))
    ((*bundles,),) = [view["bundles"] for view in ls(store)["environments"]]
    faults = {one["bundle"]: one["fault"] for one in bundles}
    assert faults[good.manifest.bundle] is faults[odd.manifest.bundle] is None
    assert "not msgpack" in faults["a" * 32]
    assert "under the name of" in faults["b" * 32]
    told = run("ls", store.url, "--no-here")
    assert told.stdout.splitlines()[1].split()[2:4] == ["4", "2"]
    assert "2 bundles not counted: `megacache ls --bundles` says why" in told.stderr


def test_nothing_hostile_reaches_the_terminal(store: Store) -> None:
    """Markup in a label is shown as it is, and control characters are not shown at all, on a terminal or off it."""
    one = bundle([artifact()], labels={"evil": EVIL})
    upload(store, one)
    store.create(f"{EVIL}.txt".replace("/", "-"), b"")
    listing = run("ls", store.url, "--no-here", "--bundles").output
    listing += run("inspect", store.url).output
    _, shown = on_terminal("ls", store.url, "--no-here", "--bundles", environment={"NO_COLOR": "1"})
    assert "evil=[red]x[/red]" in listing
    assert "evil=[red]x[/red]" in shown
    for text in (listing, shown.replace("\r\n", "\n")):
        assert not [character for character in text if not (character.isprintable() or character == "\n")]
    assert len(shown.splitlines()) == 3


@pytest.mark.parametrize(
    "options",
    [
        ["--device", "some-device-name"],
        ["--device", "Some Device Name"],
        ["--environment", HERE.fingerprint[:6]],
        ["--environment", HERE.fingerprint.upper()],
        ["--environment", PLACE.path],
    ],
)
def test_some_environments_can_be_chosen(store: Store, options: list[str]) -> None:
    """A device is named as it calls itself or as a folder, an environment by its path, fingerprint or beginning."""
    upload(store, bundle([artifact()]), bundle([artifact()], here=GPU))
    assert [one["fingerprint"] for one in ls(store, *options)["environments"]] == [HERE.fingerprint]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--device", "nvidia-h100-80gb"], "did you mean nvidia-h100-80gb-hbm3?"),
        (["--environment", f"{HERE.fingerprint[:-1]}x"], f"did you mean {HERE.fingerprint}?"),
        (["--environment", "zzzz"], "`megacache ls` shows what there is"),
        (["--environment", ""], "'' does not name an environment"),
        (["--environment", "abc"], "give at least 4 digits"),
    ],
)
def test_right_environment_is_told(store: Store, options: list[str], told: str) -> None:
    """A device or fingerprint that is not there is answered with one that is, and a stump is refused."""
    upload(store, bundle([artifact()]), bundle([artifact()], here=GPU))
    assert told in run("ls", store.url, "--no-here", *options, code=2).stderr


def test_inspect_shows_all_of_a_bundle(store: Store) -> None:
    """Environment, artifacts, files, chunks, labels and what else a manifest holds are shown."""
    one = bundle([artifact()], labels={"commit": "4d16e21"}, files=[compiled_file("ab/library.so")])
    upload(store, one)
    shown = run("inspect", store.url, one.manifest.bundle[:8]).stdout
    for text in (one.manifest.bundle, PLACE.path, "commit=4d16e21", "ab/library.so", artifact().key, "some triton"):
        assert text in shown
    assert str(one.chunks[0].ref.digest) in shown


def test_inspect_is_a_document(store: Store) -> None:
    """The JSON of `inspect` names every field of a manifest."""
    one = bundle([artifact()], files=[compiled_file()])
    upload(store, one)
    store.create(PLACE.mark(one.manifest.bundle, "pinned"), b"")
    found = document("inspect", store.url)
    assert found.keys() == {
        *("format", "command", "url", "device", "fingerprint", "bundle", "created", "age_seconds", "producer"),
        *("artifacts", "artifact_index", "files", "file_index", "file_guard", "chunks", "bytes_stored", "bytes_raw"),
        "environment",
        *("parents", "labels", "signatures", "marks"),
    }
    assert (found["device"], found["fingerprint"]) == (PLACE.device, PLACE.fingerprint)
    assert (found["marks"], found["signatures"]) == (["pinned"], [])
    assert found["environment"]["facts"] == dict(HERE.facts)
    assert found["artifact_index"] == [
        {"kind": "inductor", "key": artifact().key, "digest": str(Digest.of(b"content")), "size": 7}
    ]
    assert found["file_index"][0].keys() == {"root", "path", "digest", "size", "mode"}
    assert {chunk["part"] for chunk in found["chunks"]} == {"artifacts", "files"}
    assert found["chunks"][0].keys() == {"part", "digest", "stored_size", "raw_size", "codec"}


def test_inspect_tells_the_right_bundle(store: Store) -> None:
    """A name that is missing, short, misspelt or not there is answered with what there is."""
    one, two = bundle([artifact("a")]), bundle([artifact("b")])
    upload(store, one)
    name = one.manifest.bundle
    assert document("inspect", store.url)["bundle"] == name
    assert f"did you mean {name}?" in run("inspect", store.url, f"{name[:-1]}x", code=2).stderr
    assert "ls --bundles" in run("inspect", store.url, "zzzzzz", code=2).stderr
    assert "4 digits" in run("inspect", store.url, name[:2], code=2).stderr
    upload(store, two)
    assert "holds 2 bundles; name one" in run("inspect", store.url, code=2).stderr


def test_bundle_of_two_environments_is_chosen(store: Store) -> None:
    """The same keys have the same id in each environment: which one is meant has to be said, and is told."""
    one, other = bundle([artifact()]), bundle([artifact()], here=GPU)
    assert one.manifest.bundle == other.manifest.bundle
    upload(store, one, other)
    assert f"{PLACE.path}; give --environment" in run("inspect", store.url, one.manifest.bundle, code=2).stderr
    found = document("inspect", store.url, one.manifest.bundle, "--environment", HERE.fingerprint)
    assert found["fingerprint"] == HERE.fingerprint
    run("quarantine", store.url, one.manifest.bundle, "--device", GPU.device)
    (marked,) = [view for view in ls(store)["environments"] if view["bundles"][0]["marks"]]
    assert marked["fingerprint"] == GPU.fingerprint


def test_inspect_of_a_damaged_manifest_exits_with_four(store: Store) -> None:
    """What cannot be read is a fault of what is stored."""
    store.create(PLACE.manifest("a" * 32), b"garbage")
    assert "not msgpack" in run("inspect", store.url, "aaaa", code=4).stderr


def test_verify_finds_all_sound(store: Store) -> None:
    """A cache without damage exits with 0, and chunks in no bundle are told without alarm."""
    upload(store, bundle([artifact()]), bundle([artifact("gpu")], here=GPU))
    lost = bundle([artifact("lost")]).chunks[0]
    store.create(PLACE.chunk(lost.ref.digest), lost.stored)
    done = run("verify", store.url)
    assert [line.split()[-1] for line in done.stdout.splitlines()] == ["VERDICT", "sound", "sound"]
    assert "2 of 2 bundles sound" in done.stderr
    assert "1 chunk in no bundle" in done.stderr
    found = document("verify", store.url)
    assert found["sound"] is True
    assert found["environments"][1]["orphans"] == [str(lost.ref.digest)]


def test_verify_finds_damage(store: Store) -> None:
    """One flipped bit, or a chunk that is gone, exits with 1 and is named; the others are sound."""
    good, bad, gone = (bundle([artifact(name)]) for name in ("good", "bad", "gone"))
    upload(store, good, gone)
    key = PLACE.chunk(bad.chunks[0].ref.digest)
    store.create(key, bad.chunks[0].stored[:-1] + b"\0")
    upload(store, bad)
    store.delete(PLACE.chunk(gone.chunks[0].ref.digest))
    found = document("verify", store.url, code=1)
    assert found.keys() == {"format", "command", "url", "sound", "environments"}
    assert found["sound"] is False
    (view,) = found["environments"]
    assert view.keys() == {"device", "fingerprint", "bundles", "orphans"}
    assert view["bundles"][0].keys() == {"bundle", "marks", "bytes_stored", "faults"}
    assert {one["bundle"]: [fault["kind"] for fault in one["faults"]] for one in view["bundles"]} == {
        good.manifest.bundle: [],
        bad.manifest.bundle: ["IntegrityError"],
        gone.manifest.bundle: ["MissingError"],
    }
    assert "is damaged" in run("verify", store.url, code=1).stdout


def test_verify_of_nothing_is_no_success(store: Store) -> None:
    """Where nothing is published nothing is sound."""
    assert document("verify", store.url, code=1)["sound"] is False
    assert "nothing is published" in run("verify", store.url, code=1).stderr


def test_store_that_refuses_is_no_damage(faulty: MotoServer, name: str, tmp_path: Path) -> None:
    """Where the store will not give a chunk, `verify` exits with 3 and calls nothing damaged."""
    options = tmp_path / "options.json"
    options.write_text(json.dumps(faulty.server.storage_options))
    upload(open_store(str(tmp_path / "local")), bundle([artifact()]))
    target = f"{faulty.server.url}/{name}"
    run("cp", tmp_path / "local", target, "--target-options", options)
    faulty.fault("GET .*/chunks/", "403")
    found = document("verify", target, "--storage-options", options, code=3)
    assert found["environments"][0]["bundles"][0]["faults"][0]["kind"] == "AccessError"


def test_explain_of_places_does_without_the_last(tmp_path: Path) -> None:
    """What a warm start would load from near fits this machine, even if it is for any CPU only."""
    near, last = tmp_path / "near", tmp_path / "last"
    last.write_text("no folder")
    shared = GPU.for_any_cpu or GPU
    upload(open_store(str(near)), bundle(artifacts(1), here=shared))
    machine = told_by(tmp_path / "gpu.json", {"facts": dict(GPU.facts), "recorded": {}, "compiled_files": {}})
    found = document("explain", f"{near} {last}", "--env", machine)
    assert (found["bundles"], found["failed"], len(found["warnings"])) == (1, [], 1)
    assert "may hold more" in found["warnings"][0]
    other = told_by(tmp_path / "cpu.json", {"facts": dict(HERE.facts), "recorded": {}, "compiled_files": {}})
    assert str(last) in run("explain", f"{near} {last}", "--env", other, code=3).stderr


def test_explain_of_places_counts_all_that_is_withdrawn(tmp_path: Path, here: Path) -> None:
    """What was merged at the last place is withdrawn as much as what was quarantined there."""
    near, last = open_store(str(tmp_path / "near")), open_store(str(tmp_path / "last"))
    one, two, three = (bundle(artifacts(1, seed=seed)) for seed in range(3))
    upload(last, one, two, three)
    upload(near, one)
    catalog = Catalog(last, prefix_of(HERE))
    catalog.mark(one.manifest.bundle, "superseded")
    catalog.mark(two.manifest.bundle, "quarantined")
    found = document("explain", f"{near.url} {last.url}", "--env", here)
    assert (found["bundles"], found["withdrawn"]) == (1, 2)


def test_explain_says_that_it_would_find_something(store: Store, here: Path) -> None:
    """Bundles for the machine are counted, and compiled files that would be left out are told."""
    one = bundle([artifact()], files=[compiled_file()])
    upload(store, one, bundle([artifact("gpu")], here=GPU))
    found = document("explain", store.url, "--env", here)
    assert found == {
        "format": 1,
        "command": "explain",
        "url": store.url,
        "device": PLACE.device,
        "fingerprint": PLACE.fingerprint,
        "bundles": 1,
        "withdrawn": 0,
        "failed": [],
        "mismatches": [],
        "files_left_out": {one.manifest.bundle: [{"fact": "libc", "here": "1", "there": ""}]},
        "programs": [],
        "others": 1,
        "warnings": [],
    }
    assert "would be left out" in run("explain", store.url, "--env", here).stderr


def test_explain_tells_settings_of_programs_apart(store: Store, here: Path) -> None:
    """Of the files of vLLM it is told how the newest differ from the nearest others, and not from what is here."""

    def publish(path: str, **facts: str) -> str:
        file = dataclasses.replace(compiled_file(path), root="vllm")
        one = bundle(files=[file], guard={"libc": "1", "vllm": "0.32.0", **facts})
        upload(store, one)
        return one.manifest.bundle

    publish("a/model", VLLM_PORT="1")
    assert "compares its own settings when it starts" in run("explain", store.url, "--env", here).stderr
    publish("b/model", VLLM_PORT="1")
    bundles = {publish(f"{number}/model", VLLM_PORT=number, VLLM_X=number) for number in "23"}
    found = document("explain", store.url, "--env", here)
    ((program,), left_out) = found["programs"], found["files_left_out"]
    assert (program["root"], program["bundles"], left_out) == ("vllm", 4, {})
    facts = {one["fact"]: {one["here"], one["there"]} for one in program["mismatches"]}
    assert facts.keys() == {"VLLM_PORT", "VLLM_X"}
    assert {program["newest"], program["nearest"]} & bundles
    done = run("explain", store.url, "--env", here)
    assert f"the newest, {program['newest']}, differs from the nearest, {program['nearest']}, in:" in done.stderr
    assert {line.split()[0] for line in done.stdout.splitlines()} >= {"FACT", "VLLM_PORT", "VLLM_X"}


def test_explain_counts_what_serves_beside_any_cpu(store: Store, tmp_path: Path) -> None:
    """On a GPU the bundles for any CPU fit, too, and those for another CPU do not."""
    here = told_by(tmp_path / "gpu.json", {"facts": dict(GPU.facts), "recorded": {}, "compiled_files": {}})
    other = environment(device_type="cuda", device_name=GPU.facts["device_name"], cpu_capability="another")
    upload(store, bundle([artifact("other")], here=other))
    found = document("explain", store.url, "--env", here, code=1)
    assert (found["bundles"], [one["fact"] for one in found["mismatches"]]) == (0, ["cpu_capability"])
    upload(store, bundle([artifact()], here=GPU), bundle([artifact("shared")], here=GPU.for_any_cpu))
    found = document("explain", store.url, "--env", here)
    assert (found["bundles"], found["others"], found["fingerprint"]) == (2, 1, GPU.fingerprint)


def test_explain_names_what_differs(store: Store, here: Path) -> None:
    """A miss exits with 1, with the facts in which the nearest environment differs."""
    upload(store, bundle([artifact()], here=environment(triton="3.1", os="other")))
    found = document("explain", store.url, "--env", here, code=1)
    assert found["bundles"] == 0
    assert [one["fact"] for one in found["mismatches"]] == ["triton", "os"]
    done = run("explain", store.url, "--env", here, code=1)
    assert "the nearest of 1 environment differs in" in done.stderr
    assert [line.split()[0] for line in done.stdout.splitlines()] == ["FACT", "triton", "os"]


def test_digests_are_short_for_people_only(store: Store, here: Path) -> None:
    """A table has twelve digits of a fact that is a digest, a document all of them."""
    one = bundle([artifact()], here=environment(torch_key="0123456789abcdef" * 4), files=[compiled_file()])
    upload(store, one)
    assert run("explain", store.url, "--env", here, code=1).stdout.split()[-1] == "0123456789ab"
    assert "fact torch_key 0123456789ab\n" in re.sub(" +", " ", run("inspect", store.url).stdout)
    for found in (
        document("explain", store.url, "--env", here, code=1)["mismatches"][0]["there"],
        document("inspect", store.url)["environment"]["facts"]["torch_key"],
    ):
        assert found == "0123456789abcdef" * 4


def test_environment_with_a_fact_of_another_version_is_another(store: Store, here: Path) -> None:
    """An `epoch`, which an older version took from its URL, is a fact like any other that only one side has."""
    older = environment(epoch="2")
    upload(store, bundle([artifact()], here=older))
    told = run("explain", store.url, "--env", here, code=1)
    assert [line.split() for line in told.stdout.splitlines()] == [["FACT", "HERE", "THERE"], ["epoch", "2"]]
    (listed,) = ls(store, "--environment", older.fingerprint)["environments"]
    assert len(listed["bundles"]) == 1
    assert run("verify", store.url).stdout.rstrip().endswith("sound")


def test_explain_tells_withdrawn_and_unreadable_bundles(store: Store, here: Path) -> None:
    """A machine whose bundles cannot be used would miss, and is told that they are there."""
    one = bundle([artifact()])
    upload(store, one)
    store.create(PLACE.mark(one.manifest.bundle, "quarantined"), b"")
    assert "withdrawn for this machine: 1 bundle" in run("explain", store.url, "--env", here, code=1).stderr
    store.create(PLACE.manifest("a" * 32), b"garbage")
    found = document("explain", store.url, "--env", here, code=1)
    assert (found["bundles"], found["withdrawn"], [one["bundle"] for one in found["failed"]]) == (0, 1, ["a" * 32])
    assert "cannot be read" in run("explain", store.url, "--env", here, code=1).stderr


def test_explain_opens_only_what_is_signed(store: Store, here: Path, tmp_path: Path) -> None:
    """With trusted keys a machine would miss what they have not signed, and is told so."""
    upload(store, bundle([artifact()]))
    key = str(tmp_path / "key.pem")
    run("keygen", key)
    trusted = "--trusted-keys", f"{key}.pub"
    found = document("explain", store.url, "--env", here, *trusted, code=1)
    assert (found["bundles"], len(found["failed"])) == (0, 1)
    run("sign", store.url, "--key", key)
    assert document("explain", store.url, "--env", here, *trusted)["bundles"] == 1


def test_bundle_without_its_chunks_is_of_no_use(store: Store, here: Path) -> None:
    """A bundle of which chunks are gone is told by `ls`, and `explain` does not count on it, as a start would not."""
    one = bundle([artifact()])
    upload(store, one)
    store.delete(PLACE.chunk(one.chunks[0].ref.digest))
    assert ls(store)["environments"][0]["bundles"][0]["fault"] == "it lacks 1 chunk"
    found = document("explain", store.url, "--env", here, code=1)
    assert (found["bundles"], found["failed"][0]["kind"]) == (0, "MissingError")


def test_explain_of_nothing_says_so(store: Store, here: Path) -> None:
    """Where nothing is published at all the machine would miss for that."""
    assert "nothing is published" in run("explain", store.url, "--env", here, code=1).stderr


def test_here_can_be_piped(store: Store, here: Path) -> None:
    """What another machine says of itself can come from stdin."""
    upload(store, bundle([artifact()]))
    assert "1 bundle" in run("explain", store.url, "--env", "-", typed=here.read_text()).stderr


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"command": "ls"},
        {"format": 2, "facts": {}, "recorded": {}, "compiled_files": {}},
        {"facts": {"a": 1}, "recorded": {}, "compiled_files": {}},
        {"facts": {}, "recorded": {}, "compiled_files": []},
    ],
)
def test_strange_machine_is_refused(store: Store, tmp_path: Path, fields: dict[str, object]) -> None:
    """A file that `env --json` did not print, or a newer one did, is refused with advice."""
    run("explain", store.url, "--env", told_by(tmp_path / "strange.json", fields), code=2)
    (tmp_path / "text").write_text("no JSON")
    assert "env --json" in run("explain", store.url, "--env", tmp_path / "text", code=2).stderr


def test_this_machine_is_known(store: Store, tmp_path: Path) -> None:
    """`env` describes this machine in a document, by which `ls` and `explain` find its environment in a cache."""
    printed = in_child("env", "--json")
    found = json.loads(printed.stdout)
    assert found.keys() == {
        *("format", "command", "device", "fingerprint", "facts", "recorded", "unread", "compiled_files"),
    }
    key, table = found["facts"]["torch_key"], in_child("env").stdout
    assert (f"{key[:12]}\n" in table, key in table, len(key) > 12) == (True, False, True)
    mine = dataclasses.replace(HERE, facts=found["facts"])
    assert (mine.fingerprint, mine.device) == (found["fingerprint"], found["device"])
    upload(store, bundle([artifact()], here=mine), bundle([artifact()], here=GPU))
    lines = run("ls", store.url).stdout.splitlines()
    assert [line.endswith("this machine") for line in lines] == [False, True, False]
    (tmp_path / "here.json").write_text(printed.stdout)
    assert document("explain", store.url, "--env", tmp_path / "here.json")["bundles"] == 1
    (chosen,) = document("ls", store.url, "--mine")["environments"]
    assert (chosen["fingerprint"], chosen["here"]) == (mine.fingerprint, True)


def test_variables_are_shown_without_their_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """`env --variables` shows each variable with its value, its default and its meaning, and no password in a URL."""
    monkeypatch.setenv("MEGACACHE_URL", "s3://me:secret@bucket/flux/v1?token=secret")
    monkeypatch.setenv("MEGACACHE_WARM_TIMEOUT", "5")
    told = run("env", "--variables").stdout
    assert re.search(
        r"^MEGACACHE_URL +s3://bucket/flux/v1 +unset +the cache of calls that name none", told, re.MULTILINE
    )
    assert re.search(r"^MEGACACHE_WARM_TIMEOUT +5 +60 +seconds", told, re.MULTILINE)
    assert "secret" not in told
    url, disable, *_ = document("env", "--variables")["variables"]
    assert (url["name"], url["value"], url["default"]) == ("MEGACACHE_URL", "s3://bucket/flux/v1", None)
    assert (disable["value"], disable["default"]) == (None, "0")


def test_working_folder_does_not_shadow_torch(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder named like PyTorch where the command is run is not taken for it."""
    upload(store, bundle([artifact()]))
    shadow = tmp_path / "work" / "torch"
    shadow.mkdir(parents=True)
    (shadow / "__init__.py").write_text("raise SystemExit('the wrong torch')")
    monkeypatch.chdir(shadow.parent)
    assert "not known" not in run("ls", store.url).stderr
