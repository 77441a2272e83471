"""Compiled files travel with the graphs that use them: a warm start needs no C++ compiler."""

import platform
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from megacache import _compiler
from megacache._bundle import Manifest, seal, unseal
from megacache._bundle.environment import GUARD
from tests.kit.processes import Answer, Processes, step


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name a store that the tests of this module share."""
    return tmp_path_factory.mktemp("place")


@pytest.fixture(scope="module")
def published(place: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[str, Answer]:
    """Compile two models in one process that starts from nothing at all, and publish them."""
    names = ["inference", "publish", "used_files"]
    steps = [step("run", model="inference"), step("publish", url=str(place)), step("used_files")]
    return dict(zip(names, Processes(tmp_path_factory.mktemp("cold"), None).run(*steps), strict=True))


@pytest.fixture
def bare(tmp_path: Path) -> Processes:
    """Start children whose cache folders hold not even ISA probes."""
    return Processes(tmp_path / "bare", None)


def rewrite(store: Path, **changes: Any) -> None:
    """Change the manifest of the only bundle in a store."""
    (path,) = store.rglob("*.msgpack")
    path.write_bytes(seal(replace(unseal(path.read_bytes()), **changes)))


def manifest_of(store: Path) -> Manifest:
    """Read the manifest of the only bundle in a store."""
    (path,) = store.rglob("*.msgpack")
    return unseal(path.read_bytes())


def compilations(answer: Answer) -> list[list[str]]:
    """Give the commands that do more than ask for a version, or for what would be done."""
    asking = {"--version", "-v", "-dumpversion", "-dumpfullversion"}
    asked = [command for command in answer["commands"] if "-###" not in command]
    return [command for command in asked if not set(command[1:]) or not set(command[1:]) <= asking]


def test_all_that_was_compiled_is_published(published: Mapping[str, Answer], place: Path) -> None:
    """The libraries of the graphs and the trials of the ISA picker are in the bundle, counted, and nothing else."""
    answer = published["publish"]
    index = manifest_of(place).files.index
    assert answer["status"] == "published"
    assert answer["files"] == len(index) > 0
    assert answer["bytes_files"] == sum(file.size for file in index)
    assert [file.path for file in index] == published["used_files"]["paths"]
    assert all(file.path.endswith(".so") for file in index)
    assert any(file.path.endswith(".main.so") for file in index)
    assert any(not file.path.endswith(".main.so") for file in index)


def test_warm_start_compiles_nothing(place: Path, published: Mapping[str, Answer], bare: Processes) -> None:
    """In an empty cache folder no process is started but to ask the compiler, and the output is the same."""
    _, warmed, ran, started, again = bare.run(
        step("watch_processes"),
        step("warm", url=str(place)),
        step("run", model="inference"),
        step("started_processes"),
        step("publish", url=str(place)),
    )
    assert (warmed["status"], warmed["files"]) == ("loaded", published["publish"]["files"])
    assert warmed["bytes_files"] == published["publish"]["bytes_files"]
    assert compilations(started) == []
    assert ran["digest"] == published["inference"]["digest"]
    assert again["status"] == "unchanged"


def test_host_without_compiler_starts_warm(
    place: Path, published: Mapping[str, Answer], bare: Processes, no_compiler: dict[str, str | None]
) -> None:
    """A host that has no C++ compiler cannot compile the model, and runs it after a warm start."""
    cold = bare.start(step("run", model="inference"), environment=no_compiler)
    assert cold.exit_status() != 0
    assert "InvalidCxxCompiler" in cold.stderr
    warmed, ran, again, repeated = bare.run(
        step("warm", url=str(place)),
        step("run", model="inference"),
        step("publish", url=str(place)),
        step("warm", url=str(place)),
        environment=no_compiler,
    )
    assert (warmed["status"], warmed["warnings"]) == ("loaded", [])
    assert ran["digest"] == published["inference"]["digest"]
    assert (again["status"], repeated["files"]) == ("unchanged", warmed["files"])


def test_files_can_be_left_out(place: Path, published: Mapping[str, Answer], bare: Processes) -> None:
    """Without `files` only artifacts are loaded, and the compiler runs; a later publication repeats none of them."""
    _, warmed, ran, started, again = bare.run(
        step("watch_processes"),
        step("warm", url=str(place), files=False),
        step("run", model="inference"),
        step("started_processes"),
        step("publish", url=str(place)),
    )
    assert (warmed["status"], warmed["files"], warmed["bytes_files"]) == ("loaded", 0, 0)
    assert warmed["bytes_stored"] < published["publish"]["bytes_stored"]
    assert compilations(started)
    assert ran["fx_hit"] == 1
    assert again["status"] == "unchanged"


def test_publishing_without_files_leaves_them_out(tmp_path: Path, processes: Processes) -> None:
    """Without `files` a bundle holds artifacts alone; the files can follow in a bundle of their own."""
    store = tmp_path / "store"
    _, without, again = processes.run(
        step("run", model="doubling"),
        step("publish", url=str(store), files=False),
        step("publish", url=str(store)),
    )
    assert (without["status"], without["files"]) == ("published", 0)
    assert (again["status"], again["artifacts"]) == ("published", {})
    assert again["files"] > 0
    (warmed,) = processes.run(step("warm", url=str(store)))
    assert (len(warmed["bundles"]), warmed["files"]) == (2, again["files"])


def test_only_what_the_process_uses_travels(published: Mapping[str, Answer], tmp_path: Path) -> None:
    """From a folder that many models share, a process publishes the files of its own graphs, none of the others'."""
    bare = Processes(tmp_path / "bare", None)
    folder = bare.new_folder()
    everything, *_ = bare.run(
        step("run", model="cosine"), step("run", model="training"), step("run", model="inference"), folder=folder
    )
    assert everything["fx_miss"] == 1
    ran, answer = bare.run(step("run", model="inference"), step("publish", url=str(tmp_path / "store")), folder=folder)
    assert ran["fx_hit"] == 1
    assert len(list(folder.rglob("*.so"))) > answer["files"] > 0
    assert {file.path for file in manifest_of(tmp_path / "store").files.index} == set(published["used_files"]["paths"])


def test_what_only_the_warm_start_has_loaded_does_not_travel(
    published: Mapping[str, Answer], place: Path, tmp_path: Path, processes: Processes
) -> None:
    """To another cache goes what the graphs of this process use, and not all that it was given."""
    both, other = Path(shutil.copytree(place, tmp_path / "both")), tmp_path / "other"
    processes.run(step("run", model="cosine"), step("publish", url=str(both)))
    warmed, ran, answer = processes.run(
        step("warm", url=str(both)), step("run", model="inference"), step("publish", url=str(other))
    )
    assert (len(warmed["bundles"]), ran["fx_hit"]) == (2, 1)
    assert {file.path for file in manifest_of(other).files.index} == set(published["used_files"]["paths"])
    assert answer["warnings"] == []


@pytest.mark.usefixtures("published")
@pytest.mark.parametrize("fact", ["cpu_target", "compiler", "torch_location"])
def test_other_hosts_get_artifacts_alone(fact: str, place: Path, tmp_path: Path, processes: Processes) -> None:
    """Where a fact of the guard differs no file is restored, which is said; publishing from there heals it."""
    store = tmp_path / "store"
    shutil.copytree(place, store)
    files = manifest_of(store).files
    other = {**files.guard, fact: f"{files.guard[fact]} avx1024"}
    rewrite(store, files=replace(files, guard=other))
    folder = processes.new_folder()
    warmed, ran, again = processes.run(
        step("warm", url=str(store)), step("run", model="inference"), step("publish", url=str(store)), folder=folder
    )
    assert (warmed["status"], warmed["files"]) == ("loaded", 0)
    (warning,) = warmed["warnings"]
    assert f"{fact} is" in warning
    assert "avx1024 there" in warning
    assert ran["fx_hit"] == 1
    assert (again["status"], again["artifacts"]) == ("published", {})
    (healed,) = processes.run(step("warm", url=str(store)))
    assert (healed["status"], healed["files"]) == ("loaded", again["files"])


@pytest.mark.usefixtures("published")
def test_picker_makes_the_trials_that_are_not_recorded(place: Path, tmp_path: Path, bare: Processes) -> None:
    """If a bundle does not tell how a trial ended, the picker makes that one, when the program's compilation asks."""
    store = tmp_path / "store"
    shutil.copytree(place, store)
    files = manifest_of(store).files
    rewrite(store, files=replace(files, probes=files.probes[1:]))
    _, warmed, before, ran, started = bare.run(
        step("watch_processes"),
        step("warm", url=str(store)),
        step("started_processes"),
        step("run", model="inference"),
        step("started_processes"),
    )
    assert (warmed["status"], ran["fx_hit"]) == ("loaded", 1)
    assert compilations(before) == []
    (trial,) = compilations(started)
    assert not trial[0].endswith("g++")


def test_warm_start_makes_no_trial(
    place: Path, published: Mapping[str, Answer], tmp_path: Path, bare: Processes
) -> None:
    """A bundle may name trials that nobody has made: the first compilation makes those that it needs, as ever."""
    store = tmp_path / "store"
    shutil.copytree(place, store)
    files = manifest_of(store).files
    rewrite(store, files=replace(files, probes=("avx1024:_avx_code",)))
    _, warmed, started, ran = bare.run(
        step("watch_processes"),
        step("warm", url=str(store)),
        step("started_processes"),
        step("run", model="inference"),
    )
    assert (warmed["status"], compilations(started)) == ("loaded", [])
    assert (ran["fx_hit"], ran["digest"]) == (1, published["inference"]["digest"])


def test_guard_tells_no_folder() -> None:
    """Every fact of the guard has a value on this machine, and none of them is a path."""
    facts = _compiler.toolchain()
    assert facts.keys() == GUARD.keys()
    assert all(value for name, value in facts.items() if name != "cpu_target" or platform.machine() == "x86_64")
    assert not any("/" in value for value in facts.values())


def test_wrapper_libraries_travel(tmp_path: Path, processes: Processes, no_compiler: dict[str, str | None]) -> None:
    """With Inductor's C++ wrapper the whole graph is a library, and starts warm without a compiler, too."""
    wrapper, store = step("configure", name="_inductor.config.cpp_wrapper", value=True), str(tmp_path / "store")
    _, cold, published = processes.run(wrapper, step("run", model="inference"), step("publish", url=store))
    _, warmed, ran = processes.run(
        wrapper, step("warm", url=store), step("run", model="inference"), environment=no_compiler
    )
    assert warmed["files"] == published["files"] > 0
    assert (ran["fx_hit"], ran["digest"]) == (1, cold["digest"])


def test_workers_of_a_node_restore_side_by_side(
    place: Path, published: Mapping[str, Answer], bare: Processes, tmp_path: Path, no_compiler: dict[str, str | None]
) -> None:
    """Processes that warm at the same moment into one cache folder all find every file whole, and leave no other."""
    folder, gate = bare.new_folder(), str(tmp_path / "gate")
    steps = (
        step("import_compiler"),
        step("meet", path=gate, others=3),
        step("warm", url=str(place)),
        step("run", model="inference"),
    )
    workers = [bare.start(*steps, environment=no_compiler, folder=folder) for _ in range(3)]
    for _, _, warmed, ran in [worker.answers() for worker in workers]:
        assert (warmed["status"], warmed["files"]) == ("loaded", published["publish"]["files"])
        assert ran["digest"] == published["inference"]["digest"]
    assert sorted(str(path.relative_to(folder)) for path in folder.rglob("*.so")) == published["used_files"]["paths"]
    assert not list(folder.rglob("*.tmp"))
