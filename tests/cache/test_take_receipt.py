"""A receipt tells what PyTorch did with what was loaded, in each process that could ask."""

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch
import torch._dynamo.utils

import megacache
from megacache._bundle import Artifact, identify_artifact
from megacache._cache.session import _unused
from megacache._compiler import Activity
from tests.kit.processes import Answer, Processes, step

MODELS = ("inference", "training")
GRAPHS = {"inductor": 3, "aot_autograd": 2}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    """Name a store that the first process fills."""
    return tmp_path_factory.mktemp("store").as_uri()


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> Processes:
    """Start processes whose folders live as long as the store."""
    return Processes(tmp_path_factory.mktemp("processes"), probes)


@pytest.fixture(scope="module")
def folder(first: Processes) -> Path:
    """Make the cache folder of the first process."""
    return first.new_folder()


@pytest.fixture(scope="module")
def cold(first: Processes, folder: Path, store: str) -> Sequence[Answer]:
    """Compile two models after a warm start that finds nothing, publish them, and give the receipts."""
    runs = [step("run", model=model) for model in MODELS]
    answers = first.run(step("warm", url=store), *runs, step("receipt"), step("publish", url=store), folder=folder)
    return answers[-2:]


def word(receipt: Answer) -> str:
    """Give what a verdict begins with."""
    return str(receipt["verdict"]).partition(":")[0]


def test_cold_process_compiles_everything(cold: Sequence[Answer]) -> None:
    """If nothing is published, all graphs miss, their kernels are compiled and nothing is saved."""
    taken, published = cold
    assert word(taken) == "cold"
    for kind, count in GRAPHS.items():
        assert (taken[kind]["hit"], taken[kind]["missed"], taken[kind]["bypassed"]) == (0, count, 0)
    assert taken["cpp_runs"] >= taken["cpp_kernels"] > 0
    assert taken["cpp_seconds"] > 0
    assert (taken["warm_starts"], taken["seconds_saved"], taken["bytes_stored"]) == (1, 0, 0)
    assert (taken["loaded"], taken["unused"], taken["warnings"]) == ({}, {}, [])
    assert published["status"] == "published"


def test_receipt_comes_with_the_publication(cold: Sequence[Answer]) -> None:
    """`publish` takes the same receipt, of the moment at which it was called."""
    taken, published = cold
    taken.pop("text")
    assert published["receipt"] == taken


def test_warm_process_uses_everything(first: Processes, store: str, cold: Sequence[Answer]) -> None:
    """If the same models run, all graphs hit, nothing loaded is unused, and PyTorch tells the seconds it saved."""
    runs = [step("run", model=model) for model in MODELS]
    warmed, *_, taken, published = first.run(
        step("warm", url=store), *runs, step("receipt"), step("publish", url=store, wait=False)
    )
    assert word(taken) == "warm"
    for kind, count in GRAPHS.items():
        assert (taken[kind]["hit"], taken[kind]["missed"], taken[kind]["bypassed"]) == (count, 0, 0)
    assert (taken["loaded"], taken["unused"], taken["warnings"]) == (GRAPHS, {}, [])
    assert (taken["bytes_stored"], taken["bytes_raw"]) == (warmed["bytes_stored"], warmed["bytes_raw"])
    assert taken["seconds_warming"] == warmed["seconds"]["total"]
    assert taken["seconds_saved"] > 0
    assert taken.pop("text") == taken["verdict"]
    assert (published["status"], published["receipt"]) == ("unchanged", taken)
    assert cold[1]["bundle"] in warmed["bundles"]


def test_kernels_that_are_there_are_not_compiled_anew(
    first: Processes, folder: Path, store: str, cold: Sequence[Answer]
) -> None:
    """In the folder that holds the libraries, no kernel is compiled, whatever else the compiler is asked for."""
    *_, taken = first.run(
        step("warm", url=store), *(step("run", model=model) for model in MODELS), step("receipt"), folder=folder
    )
    assert (word(taken), taken["cpp_kernels"]) == ("warm", 0)
    assert taken["cpp_runs"] < cold[0]["cpp_runs"]


@pytest.mark.usefixtures("cold")
def test_bundle_of_another_model_is_waste(first: Processes, store: str) -> None:
    """If another model runs than was published, all that was loaded is unused, which is a warning."""
    warmed, _, taken = first.run(step("warm", url=store), step("run", model="doubling"), step("receipt"))
    assert word(taken) == "saved nothing"
    assert taken["unused"] == taken["loaded"] == GRAPHS
    assert len(taken["warnings"]) == 1
    assert f"moved {warmed['bytes_stored']:,} bytes" in taken["warnings"][0]


@pytest.mark.usefixtures("cold")
def test_part_of_a_bundle_is_no_waste(first: Processes, store: str) -> None:
    """If one of two published models runs, what the other needs is counted as unused, without a warning."""
    _, _, taken = first.run(step("warm", url=store), step("run", model="inference"), step("receipt"))
    assert (word(taken), taken["warnings"]) == ("warm", [])
    assert taken["unused"] == {"inductor": 2, "aot_autograd": 1}


def test_bypasses_have_torchs_reasons(processes: Processes, tmp_path: Path) -> None:
    """What a cache does not take is counted with PyTorch's own reason, for each cache apart."""
    *_, taken = processes.run(
        step("warm", url=str(tmp_path)),
        step("run", model="conditional"),
        step("run", model="custom_backward"),
        step("receipt"),
    )
    assert taken["inductor"]["reasons"] == {"Can't cache HigherOrderOperator: cond": 1}
    assert sorted(taken["aot_autograd"]["reasons"].values()) == [1, 1]
    assert {"cond", "autograd_function_apply"} == {
        name for name in ("cond", "autograd_function_apply") if name in " ".join(taken["aot_autograd"]["reasons"])
    }
    assert (taken["inductor"]["bypassed"], taken["aot_autograd"]["bypassed"]) == (1, 2)
    assert len(taken["warnings"]) == 3


def test_guard_misses_are_told_apart(processes: Processes, tmp_path: Path) -> None:
    """A graph that is there for another size is a miss by its guards."""
    store = str(tmp_path / "store")
    processes.run(step("run", model="guarded"), step("publish", url=store))
    _, _, taken = processes.run(step("warm", url=store), step("run", model="guarded", rows=100), step("receipt"))
    for kind in GRAPHS:
        assert (taken[kind]["missed"], taken[kind]["guard_missed"]) == (1, 1)
    assert word(taken) == "saved nothing"


def test_process_without_a_warm_start_knows_counts_only(processes: Processes) -> None:
    """Without a warm start nobody listened: lookups are counted, reasons, kernels and saved seconds are unknown."""
    _, taken = processes.run(step("run", model="conditional"), step("receipt"))
    assert word(taken) == "not warmed"
    assert taken["inductor"]["reasons"] == taken["aot_autograd"]["reasons"] == {"unknown": 1}
    assert (taken["inductor"]["guard_missed"], taken["cpp_kernels"], taken["seconds_saved"]) == (None, None, None)
    assert taken["cpp_runs"] > 0
    assert "an unknown number of C++" in taken["verdict"]


def test_what_was_heard_outlives_what_others_clear(processes: Processes, tmp_path: Path) -> None:
    """If a program clears PyTorch's counters or resets it, what was heard is kept, and the receipt says so."""
    before, _, _, after = processes.run(
        step("warm", url=str(tmp_path)),
        step("run", model="doubling"),
        step("receipt"),
        step("clear_counters"),
        step("start_afresh"),
        step("receipt"),
    )[2:]
    assert not before["counters_cleared"]
    assert after["counters_cleared"]
    assert "counters were cleared" in " ".join(after["warnings"])
    for name in ("aot_autograd", "inductor", "cpp_kernels", "cpp_runs"):
        assert after[name] == before[name]


def test_cycles_of_one_process_add_up(processes: Processes, tmp_path: Path) -> None:
    """A receipt counts all warm starts of its process, and each artifact that they loaded once."""
    store = str(tmp_path / "store")
    cycle = [step("run", model="doubling"), step("publish", url=store), step("start_afresh")]
    *_, taken = processes.run(
        step("warm", url=store), *cycle, step("warm", url=store), step("warm", url=store), *cycle, step("receipt")
    )
    assert taken["warm_starts"] == 3
    assert taken["loaded"] == {"inductor": 1, "aot_autograd": 1}
    assert [(taken[kind]["hit"], taken[kind]["missed"]) for kind in GRAPHS] == [(1, 1), (1, 1)]
    assert taken["unused"] == {}


def test_fork_keeps_the_books(processes: Processes, tmp_path: Path) -> None:
    """A forked child begins with what its parent counted, as PyTorch's own counters do."""
    *_, parent, child = processes.run(
        step("warm", url=str(tmp_path)), step("run", model="doubling"), step("receipt"), step("receipt_in_fork")
    )
    assert child == parent


@pytest.mark.parametrize("fails", [False, True])
def test_block_has_a_receipt(processes: Processes, tmp_path: Path, fails: bool) -> None:
    """`synchronized` sets the receipt when its block has ended, also by an exception."""
    (answer,) = processes.run(step("synchronize", model="doubling", fails=fails, url=str(tmp_path)))
    assert answer["receipt"]["warm_starts"] == 1
    assert answer["receipt"]["inductor"]["missed"] == 1
    assert bool(answer["published"]) is not fails
    if not fails:
        assert answer["published"]["receipt"] == answer["receipt"]


@pytest.mark.parametrize(("variable", "logged"), [("MEGACACHE_READ_ONLY", 1), ("MEGACACHE_DISABLE", 0)])
def test_verdict_is_logged_with_the_publication(
    variable: str, logged: int, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Each publication logs the verdict at INFO, unless megacache is switched off."""
    monkeypatch.setenv(variable, "1")
    with caplog.at_level(logging.INFO, "megacache"):
        published = megacache.publish("memory://anywhere")
    verdicts = [record for record in caplog.records if record.getMessage().startswith("receipt: ")]
    assert [record.levelname for record in verdicts] == ["INFO"] * logged
    for record in verdicts:
        assert record.getMessage() == f"receipt: url=memory://anywhere verdict={published.receipt}"


def test_receipt_imports_nothing() -> None:
    """Before PyTorch is imported nothing was compiled, and a receipt says so without importing it."""
    code = "import json, sys, megacache; print(json.dumps([megacache.receipt().to_json(), 'torch' in sys.modules]))"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True)
    taken, imported = json.loads(told.stdout)
    assert (word(taken), taken["inductor"]["missed"], taken["cpp_runs"], imported) == ("not warmed", 0, 0, False)


@pytest.mark.skipif(torch.__version__.startswith("2.8."), reason="PyTorch 2.8 tells of no lookup that it begins anew")
def test_graph_that_is_looked_up_twice_counts_once(first: Processes, tmp_path: Path) -> None:
    """PyTorch looks a graph up, finds a number to specialise and begins anew: a start that finds it then is warm."""
    run = step("run", model="normed")
    url = str(tmp_path)
    _, _, cold, _ = first.run(step("warm", url=url), run, step("receipt"), step("publish", url=url))
    _, _, warm = first.run(step("warm", url=url), run, step("receipt"))
    for taken, told in ((cold, "cold"), (warm, "warm")):
        assert word(taken) == told
        assert [sum(taken[kind][state] for state in ("hit", "missed")) for kind in GRAPHS] == [1, 1]


def test_torch_without_its_counters_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a PyTorch has no such counters, the numbers are None and no exception is raised."""
    monkeypatch.delattr(torch._dynamo.utils, "counters")
    monkeypatch.delattr(torch._dynamo.utils, "compilation_time_metrics")
    monkeypatch.delattr("torch.compiler._cache.CacheArtifactManager")
    monkeypatch.setattr("megacache._compiler.kernels._watched", [])
    taken = megacache.receipt()
    assert (taken.inductor, taken.aot_autograd, taken.unused) == (None, None, None)
    assert (taken.cpp_runs, taken.cpp_seconds, taken.triton_kernels) == (None, None, None)
    assert "unknown" in str(taken)


@pytest.mark.parametrize(
    ("recorded", "hit", "missed", "unused"),
    [
        ({("inductor", "a", 1)}, 1, "", {"inductor": 1}),
        ({("inductor", "a", 1), ("inductor", "b", 2)}, 2, "", {}),
        ({("inductor", "a", 7), ("inductor", "b", 7)}, 2, "", {}),
        ({("inductor", "a", 7), ("inductor", "b", 7)}, 1, "b", {"inductor": 1}),
        ({("inductor", "a", 7), ("inductor", "b", 7)}, 1, "unheard", {"inductor": 2}),
        ({("inductor", "a", 7)}, 0, "a", {"inductor": 2}),
        (set(), 0, "", {"inductor": 2}),
        (set(), 1, "", None),
        (None, 1, "", None),
    ],
    ids=[
        "half",
        "all",
        "all, of this host's own",
        "half, of this host's own",
        "nobody knows which",
        "compiled here",
        "nothing",
        "unseen hit",
        "unknown",
    ],
)
def test_unused_is_what_torch_did_not_record(
    recorded: set[tuple[str, str, int]] | None, hit: int, missed: str, unused: dict[str, int] | None
) -> None:
    """Graphs that left no record and did not hit are unused; a hit that left no record at all hides the rest."""
    contents = {"a": b"1", "b": b"22"}
    loaded = [
        identify_artifact(Artifact(kind="inductor", key=key, content=content)) for key, content in contents.items()
    ]
    loaded.append(identify_artifact(Artifact(kind="pgo", key="job", content=b"state")))
    activity = Activity(
        inductor=megacache.Lookups(hit=hit, missed=int(bool(missed))),
        aot_autograd=None,
        cpp_kernels=None,
        cpp_runs=None,
        cpp_seconds=None,
        triton_kernels=None,
        seconds_saved=None,
        counters_cleared=False,
        recorded=None if recorded is None else frozenset(recorded),
        missed=frozenset({("inductor", missed)} if missed in contents else ()),
    )
    assert _unused(loaded, activity) == unused
