"""Nothing that was restored fails later than PyTorch alone would: what is gone, or of no use, is compiled again."""

import importlib.util
import pickle
import shutil
import sysconfig
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

from megacache._bundle import Artifact
from tests.kit.damage import add_bundle, contents, manifest_path, replace_kernels
from tests.kit.processes import TIMEOUT, Answer, Processes, step

KERNELS, GRAPHS, EVERYTHING = "*/*.main.so", "fxgraph/*/*", "*"
RUN = step("run", model="inference")


def another_library() -> bytes:
    """Read a library that is sound, and is none of Inductor's."""
    spec = importlib.util.find_spec("_testcapi") or importlib.util.find_spec("zlib")
    assert spec is not None
    assert spec.origin is not None
    path = Path(spec.origin)
    if path.suffix != ".so":  # it is built into this Python
        path = next(Path(sysconfig.get_path("platlib")).rglob("*.so"))
    return path.read_bytes()


UNUSABLE: Mapping[str, bytes] = {"garbage": b"garbage" * 1_000, "empty": b"", "another module": another_library()}


@pytest.fixture(scope="module")
def cold(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> tuple[Path, Answer]:
    """Publish a model that was compiled cold."""
    place = tmp_path_factory.mktemp("place") / "store"
    ran, published = Processes(tmp_path_factory.mktemp("cold"), probes).run(RUN, step("publish", url=str(place)))
    assert published["status"] == "published"
    return place, ran


@pytest.fixture
def store(cold: tuple[Path, Answer], tmp_path: Path) -> Path:
    """Give a copy that may be changed."""
    return Path(shutil.copytree(cold[0], tmp_path / "store"))


@pytest.mark.parametrize(
    ("pattern", "misses"),
    [(KERNELS, False), (GRAPHS, True), (EVERYTHING, True)],
    ids=["libraries", "graphs", "everything"],
)
def test_what_is_removed_after_a_warm_start_is_not_missed(
    pattern: str, misses: bool, cold: tuple[Path, Answer], processes: Processes, no_compiler: dict[str, str | None]
) -> None:
    """A cleaner that comes before the first compilation costs a compilation at most, and never one of C++."""
    warmed, removed, ran, _, again = processes.run(
        step("warm", url=str(cold[0])),
        step("remove", pattern=pattern),
        RUN,
        step("start_afresh"),
        RUN,
        environment=no_compiler,
    )
    assert (warmed["status"], warmed["warnings"]) == ("loaded", [])
    assert removed["removed"] > 0
    assert bool(ran["fx_miss"]) is misses
    assert ran["digest"] == again["digest"] == cold[1]["digest"]


def test_folder_that_pytorch_changes_for_a_while_is_not_missed(cold: tuple[Path, Answer], processes: Processes) -> None:
    """In a cache folder that torch makes for a block, and after it, a warmed process compiles and goes on."""
    _, apart, _, after = processes.run(
        step("warm", url=str(cold[0])), step("run_apart", model="inference"), step("start_afresh"), RUN
    )
    assert (apart["fx_miss"], after["fx_hit"]) == (1, 1)
    assert apart["digest"] == after["digest"] == cold[1]["digest"]


def test_guard_of_sizes_needs_no_compiler(
    processes: Processes, tmp_path: Path, no_compiler: dict[str, str | None]
) -> None:
    """Where no compiler is found Dynamo checks sizes in Python, after a warm start as well."""
    url, run = str(tmp_path / "store"), step("run", model="dynamic")
    cold, _ = processes.run(run, step("publish", url=url))
    _, _, ran = processes.run(
        step("warm", url=url),
        step("configure", name="_dynamo.config.enable_cpp_symbolic_shape_guards", value=True),
        run,
        environment=no_compiler,
    )
    assert (ran["fx_hit"], ran["digest"]) == (1, cold["digest"])


@pytest.mark.parametrize("content", UNUSABLE.values(), ids=UNUSABLE)
def test_library_that_cannot_be_loaded_is_compiled(
    content: bytes, cold: tuple[Path, Answer], store: Path, processes: Processes
) -> None:
    """It never gets its name on this disk, the model is compiled, and what was compiled is published in its place."""
    bad, folder = replace_kernels(store, content), processes.new_folder()
    warmed, removed, ran, published = processes.run(
        step("warm", url=str(store)),
        step("remove", pattern=KERNELS),
        RUN,
        step("publish", url=str(store)),
        folder=folder,
    )
    assert (warmed["status"], removed["removed"]) == ("loaded", 0)
    (warning,) = warmed["warnings"]
    assert f"1 compiled file of bundle {bad} could not be restored" in warning
    assert (ran["fx_hit"], ran["digest"]) == (1, cold[1]["digest"])
    assert (published["status"], published["files"], published["artifacts"]) == ("published", 1, {})
    _, plain = processes.run(step("import_compiler"), RUN, folder=folder)
    healed, later = processes.run(step("warm", url=str(store)), RUN)
    assert len(healed["bundles"]) == 2
    assert plain["digest"] == later["digest"] == cold[1]["digest"]


def test_damaged_library_is_replaced_by_the_one_that_was_published(
    cold: tuple[Path, Answer], processes: Processes, no_compiler: dict[str, str | None]
) -> None:
    """A library that lies in the cache folder under the same name, and is another, does not stand in the way."""
    folder = processes.new_folder()
    (library,) = (file for file in contents(cold[0])[1] if file.path.endswith(".main.so"))
    path = folder / library.path
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(library.content[:1_000])
    warmed, ran = processes.run(step("warm", url=str(cold[0])), RUN, folder=folder, environment=no_compiler)
    assert (warmed["warnings"], ran["digest"]) == ([], cold[1]["digest"])
    assert path.read_bytes() == library.content


@pytest.mark.parametrize("content", [pickle.dumps(42), b"garbage"], ids=["a number", "garbage"])
def test_graph_that_pytorch_cannot_use_leaves_nothing_behind(
    content: bytes, cold: tuple[Path, Answer], store: Path, processes: Processes
) -> None:
    """Its bundle is left out, and neither this start nor a later one without a warm start meets it."""
    artifacts, files = contents(store)
    bad = [
        Artifact(kind=one.kind, key=one.key, content=content) if one.kind == "inductor" else one for one in artifacts
    ]
    sound = manifest_path(store)
    bundle = add_bundle(store, *bad, files=files)
    if sound.stem != bundle:
        sound.unlink()
    folder = processes.new_folder()
    warmed, graphs, kernels, ran = processes.run(
        step("warm", url=str(store)), step("artifacts_on_disk"), step("remove", pattern=KERNELS), RUN, folder=folder
    )
    assert (warmed["status"], warmed["error"]) == ("unavailable", "CompilerError")
    assert "PyTorch could not use inductor artifact" in warmed["reason"]
    assert f"bundle {bundle} was left out" in " ".join(warmed["warnings"])
    assert (graphs, kernels["removed"]) == ({"fxgraph": 0, "aotautograd": 0}, 0)
    (plain,) = processes.run(RUN, folder=folder)
    assert ran["digest"] == plain["digest"] == cold[1]["digest"]


def wait_for(folder: Path) -> None:
    """Wait until a process has come to a point."""
    deadline = time.monotonic() + TIMEOUT
    while not (folder.is_dir() and list(folder.iterdir())):
        assert time.monotonic() < deadline, "nobody came"
        time.sleep(0.01)


def test_clean_up_takes_nothing_from_under_a_living_process(
    cold: tuple[Path, Answer], processes: Processes, tmp_path: Path, no_compiler: dict[str, str | None]
) -> None:
    """A worker that has warmed compiles as if nothing had happened when others have died and one has cleaned up."""
    folder, url, gate = processes.new_folder(), str(cold[0]), tmp_path / "gate"
    first = processes.start(
        step("warm", url=url),
        step("meet", path=str(gate / "warm"), others=1),
        step("meet", path=str(gate / "clean"), others=2),
        RUN,
        folder=folder,
        environment=no_compiler,
    )
    gate.mkdir()
    (gate / "clean").mkdir()
    wait_for(gate / "warm")
    for _ in range(2):
        assert processes.start(step("warm", url=url), RUN, step("kill"), folder=folder).exit_status() < 0
    (restarted,) = processes.run(step("warm", url=url), folder=folder)
    assert "two processes in a row ended" in restarted["reason"]
    (gate / "clean" / "done").touch()
    *_, ran = first.answers()
    assert ran["digest"] == cold[1]["digest"]


def test_publication_that_lacks_files_says_so_on_both_sides(
    cold: tuple[Path, Answer], processes: Processes, tmp_path: Path
) -> None:
    """Who publishes and who loads are told which libraries were gone; who compiles them then makes the cache whole."""
    url = str(tmp_path / "store")
    _, removed, published = processes.run(RUN, step("remove", pattern=KERNELS), step("publish", url=url))
    assert (published["status"], removed["removed"]) == ("published", 1)
    (warning,) = published["warnings"]
    assert "1 compiled file that its graphs or kernels need had been removed before it was published" in warning
    warmed, ran, receipt, healed = processes.run(step("warm", url=url), RUN, step("receipt"), step("publish", url=url))
    (warning,) = warmed["warnings"]
    assert f"bundle {published['bundle']} is not whole: 1 compiled file" in warning
    assert (ran["fx_hit"], ran["digest"]) == (1, cold[1]["digest"])
    assert receipt["cpp_kernels"] == 1
    assert receipt["verdict"].startswith("partly warm: ")
    assert receipt["unused"] == {}
    assert (healed["status"], healed["files"], healed["warnings"]) == ("published", 1, [])
    again, _, whole = processes.run(step("warm", url=url), RUN, step("receipt"))
    assert (again["warnings"], whole["cpp_kernels"]) == ([], 0)
    assert whole["verdict"].startswith("warm: ")
