"""vLLM keeps what it compiles in a folder of its own, which travels as the root `vllm`."""

import json
import logging
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path
from types import SimpleNamespace

import pytest

from megacache._bundle import Manifest, unseal
from megacache.integrations import vllm as plugin
from tests.kit.engines import FOLDER, HASH
from tests.kit.processes import Answer, Processes, step

READ_AGAIN = ["artifact_compile_range_1_8_subgraph_0", "vllm_compile_cache.py"]


def paths_of(rank: int) -> list[str]:
    """Name the files of a rank that vLLM would read again."""
    return [f"{FOLDER}/{HASH}/rank_{rank}_0/backbone/{name}" for name in READ_AGAIN]


def bundles(store: Path, root: str = "vllm") -> list[Manifest]:
    """Read the manifests of the bundles that hold files of a root."""
    found = [unseal(path.read_bytes()) for path in sorted(store.rglob("*.msgpack"))]
    return [one for one in found if any(file.root == root for file in one.files.index)]


def sources(started: Answer) -> list[str]:
    """Name what was given to a C++ compiler."""
    return [str(word) for command in started["commands"] for word in command if str(word).endswith((".cpp", ".h"))]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Name a store that the tests of this module share."""
    return tmp_path_factory.mktemp("store")


@pytest.fixture(scope="module")
def published(store: Path, probes: Path, tmp_path_factory: pytest.TempPathFactory) -> Mapping[int, list[Answer]]:
    """Compile and publish in two processes that are two ranks of one server and run side by side."""
    folder = tmp_path_factory.mktemp("ranks")
    processes = Processes(folder / "inductor", probes)
    ranks = {
        rank: processes.start(
            step("vllm_like", rank=rank, url=f"file://{store}"),
            step("publish", url=f"file://{store}"),
            environment={"VLLM_CACHE_ROOT": str(folder / "vllm")},
        )
        for rank in (0, 1)
    }
    return {rank: running.answers() for rank, running in ranks.items()}


@pytest.fixture
def empty(tmp_path: Path) -> dict[str, str | None]:
    """Give the environment of a host on which vLLM has never run."""
    return {"VLLM_CACHE_ROOT": str(tmp_path / "vllm")}


def test_each_rank_publishes_its_own(published: Mapping[int, list[Answer]], store: Path) -> None:
    """A process publishes what vLLM reads again from its own rank's folder, without a warning that it is hidden."""
    for served, answer in published.values():
        assert (served["loaded"], served["warnings"]) == (False, [])
        assert (answer["status"], answer["warnings"]) == ("published", [])
    held = [[f"{FOLDER}/{file.path}" for file in bundle.files.index] for bundle in bundles(store)]
    assert sorted(held) == [paths_of(0), paths_of(1)]
    assert {bundle.files.guard["vllm"] for bundle in bundles(store)} == {"0.33.0"}
    assert all("vllm" not in bundle.files.guard for bundle in bundles(store, "inductor"))


@pytest.mark.parametrize("rank", [0, 1])
def test_rank_starts_warm_on_another_host(
    rank: int,
    published: Mapping[int, list[Answer]],
    store: Path,
    processes: Processes,
    empty: dict[str, str | None],
) -> None:
    """With an empty folder, a process finds what all ranks have compiled, loads its own, and has nothing to add."""
    _, served, started, again = processes.run(
        step("watch_processes"),
        step("vllm_like", rank=rank, url=f"file://{store}"),
        step("started_processes"),
        step("publish", url=f"file://{store}"),
        environment=empty,
    )
    assert served["restored"] == [*paths_of(0), *paths_of(1)]
    assert served["loaded"]
    assert served["digest"] == published[rank][0]["digest"]
    assert sources(started) == []
    assert (again["status"], again["warnings"]) == ("unchanged", [])


@pytest.mark.usefixtures("published")
def test_paths_are_those_of_the_reader(store: Path, processes: Processes, empty: dict[str, str | None]) -> None:
    """The file in which vLLM writes its folder names that of the host where it is restored."""
    processes.run(step("vllm_like", rank=0, url=f"file://{store}"), environment=empty)
    artifact, handles = (Path(str(empty["VLLM_CACHE_ROOT"])) / path for path in paths_of(0))
    assert f"'{artifact}'" in handles.read_text()


@pytest.mark.usefixtures("published")
def test_other_version_compiles_for_itself(
    store: Path, tmp_path: Path, processes: Processes, empty: dict[str, str | None]
) -> None:
    """Another version of vLLM is told why it gets none of its files, keeps the ordinary ones, and publishes its own."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    served, answer = processes.run(
        step("vllm_like", rank=0, version="0.34.0", url=f"file://{copy}"),
        step("publish", url=f"file://{copy}"),
        environment=empty,
    )
    assert (served["restored"], served["loaded"]) == ([], False)
    assert served["ordinary"] > 0
    (warning,) = served["warnings"]
    assert "none of 1 bundle with files of vllm fits here" in warning
    assert warning.endswith("vllm is 0.34.0 here, 0.33.0 there")
    assert (answer["status"], answer["files"]) == ("published", len(READ_AGAIN))
    assert sorted(bundle.files.guard["vllm"] for bundle in bundles(copy)) == ["0.33.0", "0.33.0", "0.34.0"]


@pytest.mark.usefixtures("published")
def test_miss_of_vllm_alone_is_explained(
    store: Path, tmp_path: Path, processes: Processes, empty: dict[str, str | None]
) -> None:
    """Where a store holds nothing but another version's files, the reason of the miss is that version."""
    copy = tmp_path / "store"
    shutil.copytree(store, copy)
    for bundle in bundles(copy, "inductor"):
        (path,) = copy.rglob(f"{bundle.bundle}.msgpack")
        path.unlink()
    (served,) = processes.run(step("vllm_like", rank=0, version="0.34.0", url=f"file://{copy}"), environment=empty)
    assert served["reason"].count("vllm is 0.34.0 here, 0.33.0 there") == 1


@pytest.mark.usefixtures("published")
def test_process_without_vllm_passes_by_in_silence(store: Path, processes: Processes) -> None:
    """Who does not run vLLM downloads none of its files, hears nothing of them, and gets the ordinary ones."""
    (warmed,) = processes.run(step("warm", url=f"file://{store}"))
    ordinary = bundles(store, "inductor")
    assert (warmed["status"], warmed["warnings"]) == ("loaded", [])
    assert warmed["bundles"] == [bundle.bundle for bundle in ordinary]
    assert warmed["files"] == len({file.path for bundle in ordinary for file in bundle.files.index})
    assert warmed["bytes_stored"] == sum(chunk.stored_size for bundle in ordinary for chunk in bundle.chunks)


def test_without_files_the_warning_stays(processes: Processes, tmp_path: Path, empty: dict[str, str | None]) -> None:
    """If compiled files are not to be carried, what `standalone_compile` hides is missing, which is said."""
    url = f"file://{tmp_path / 'store'}"
    _, answer = processes.run(
        step("vllm_like", rank=0, url=url), step("publish", url=url, files=False), environment=empty
    )
    assert answer["status"] == "empty"
    assert "standalone_compile" in answer["warnings"][0]


@pytest.mark.parametrize(("variables", "hooks"), [({}, 0), ({"MEGACACHE_URL": "memory://x"}, 1)])
def test_loading_the_plugin_is_cheap(variables: dict[str, str], hooks: int) -> None:
    """Registering imports neither PyTorch nor vLLM, adds one finder at most, and none without a URL."""
    code = (
        "import json, sys; before = len(sys.meta_path); from megacache.integrations.vllm import register; "
        "register(); register(); "
        "print(json.dumps([len(sys.meta_path) - before, 'torch' in sys.modules, 'vllm' in sys.modules]))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, timeout=120, check=True
    )
    assert json.loads(ran.stdout) == [hooks, False, False]


def test_hook_is_set_as_vllm_imports_its_module(tmp_path: Path) -> None:
    """A module that vLLM imports after registration, or has imported before it, loads models by way of megacache."""
    package = tmp_path / "vllm" / "compilation"
    package.mkdir(parents=True)
    (package / "decorators.py").write_text(
        "def _try_load_aot_compiled_fn(): ...\nclass TorchCompileWithNoGuardsWrapper:\n    def __call__(self): ...\n"
    )
    register, load = (
        "from megacache.integrations.vllm import register; register()",
        "import vllm.compilation.decorators",
    )
    for first, second in ((register, load), (load, register)):
        code = f"{first}\n{second}\nprint(vllm.compilation.decorators._try_load_aot_compiled_fn.__module__)"
        path = os.pathsep.join([str(tmp_path), *sys.path])
        ran = subprocess.run(
            [sys.executable, "-c", code],
            env={"MEGACACHE_URL": "memory://x", "PYTHONPATH": path},
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        assert ran.stdout == "megacache.integrations.vllm\n"


def test_settings_that_mean_nothing_do_not_stop_vllm(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A bad value of a variable is logged, and vLLM starts as it would without a cache."""
    monkeypatch.setenv("MEGACACHE_DISABLE", "perhaps")
    with caplog.at_level(logging.WARNING, "megacache"):
        plugin.register()
    assert "perhaps" in caplog.text


SERVER = """
import logging, sys
from types import SimpleNamespace
from megacache.integrations import vllm

if "configured" in sys.argv:
    logging.basicConfig(level="WARNING", format="program: %(message)s", stream=sys.stderr)
vllm.register()
vllm.register()
vllm._hook_models(SimpleNamespace(support_torch_compile=print))
logging.getLogger("megacache").info("an aside")
"""
UNSUPPORTED = "vLLM starts cold: megacache does not support this version of it; use vLLM 0.33, or upgrade megacache"


@pytest.mark.parametrize(
    ("how", "variables", "told"),
    [
        ("alone", {}, [f"megacache: {UNSUPPORTED}", "megacache: an aside"]),
        ("alone", {"MEGACACHE_LOG": "warning"}, [f"megacache: {UNSUPPORTED}"]),
        ("alone", {"MEGACACHE_LOG": "error"}, []),
        ("configured", {}, [f"program: {UNSUPPORTED}"]),
    ],
)
def test_log_is_seen_unless_the_program_shows_it(
    tmp_path: Path, how: str, variables: Mapping[str, str], told: list[str]
) -> None:
    """VLLM shows its own log alone: what megacache says goes to stderr, each line once."""
    done = subprocess.run(
        [sys.executable, "-c", SERVER, how],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "MEGACACHE_URL": str(tmp_path), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr.splitlines() == told


@pytest.mark.parametrize(
    "variables", [{"MEGACACHE_DISABLE": "perhaps"}, {"MEGACACHE_URL": "/tmp", "MEGACACHE_LOG": "verbose"}]
)
def test_wrong_setting_is_told_on_stderr(variables: Mapping[str, str]) -> None:
    """What the variable is, too, that would show it."""
    done = subprocess.run(
        [sys.executable, "-c", "from megacache.integrations import vllm; vllm.register()"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), **variables},
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    (line,) = done.stderr.splitlines()
    assert line.startswith("megacache: vLLM starts cold: ")


def test_unknown_version_of_vllm_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    """Where vLLM has no such functions, one warning says what to do, and nothing is changed."""
    module = SimpleNamespace(support_torch_compile=print)
    with caplog.at_level(logging.WARNING, "megacache"):
        plugin._hook_models(module)
    assert vars(module) == {"support_torch_compile": print}
    (record,) = caplog.records
    assert "megacache does not support this version of it; use vLLM 0.33" in record.getMessage()


def missing() -> Iterator[str]:
    """Name what the tests with vLLM itself lack here."""
    if find_spec("vllm") is None:
        yield "vLLM is not installed: nox -s vllm"
    elif not entry_points(group="vllm.general_plugins", name="megacache"):
        yield "megacache is not installed with its entry point"


real = pytest.mark.skipif(any(missing()), reason="; ".join(missing()))
MODES: dict[str, dict[str, str]] = {
    "whole": {},
    "pieces": {"VLLM_USE_MEGA_AOT_ARTIFACT": "0"},
    "traced": {"VLLM_USE_AOT_COMPILE": "0"},
}


@pytest.mark.nightly
@real
@pytest.mark.parametrize("mode", MODES)
def test_vllm_itself_starts_warm(mode: str, tmp_path: Path, processes: Processes) -> None:
    """What vLLM compiled for two ranks, it loads in new processes with an empty folder, and compiles nothing."""
    variables = {"MEGACACHE_URL": f"file://{tmp_path / 'store'}", "VLLM_TARGET_DEVICE": "cpu", **MODES[mode]}
    cold = {}
    for rank in (0, 1):
        steps = step("vllm_itself", rank=rank), step("publish")
        cold[rank], answer = processes.run(
            *steps, environment={**variables, "VLLM_CACHE_ROOT": str(tmp_path / f"cold-{rank}")}
        )
        assert cold[rank]["counted"]["num_inductor_compiles"] == 1
        assert (answer["status"], answer["warnings"]) == ("published", [])
    assert len(bundles(tmp_path / "store")) == 2
    _, warm, started, again = processes.run(
        step("watch_processes"),
        step("vllm_itself", rank=1),
        step("started_processes"),
        step("publish"),
        environment={**variables, "VLLM_CACHE_ROOT": str(tmp_path / "warm")},
    )
    assert sources(started) == []
    assert warm["counted"]["num_inductor_compiles"] == 0
    assert warm["counted"]["num_compiled_artifacts_loaded"] == 1
    assert warm["digest"] == cold[1]["digest"] != cold[0]["digest"]
    assert (again["status"], again["warnings"]) == ("unchanged", [])
