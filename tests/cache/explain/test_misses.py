"""A miss is explained by what differs, and by nothing else."""

import re
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from megacache._bundle import EXPLAIN_PART, EnvironmentPrefix, GraphKey, parse_keys, unseal
from tests.kit.builders import open_store
from tests.kit.processes import REPOSITORY, Answer, Processes, Step, step

HERE = torch.backends.cpu.get_cpu_capability()
USER = "quuxandra"
KEY_HAS_THREADS = torch.__version__ >= "2.13"
"""Before, PyTorch used kernels that were compiled for another number of threads."""


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> str:
    """Publish what one process compiled."""
    url = str(tmp_path_factory.mktemp("published") / "store")
    *_, answer = Processes(tmp_path_factory.mktemp("publisher"), probes).run(
        step("run", model="doubling"),
        step("run", model="inference"),
        step("run", model="training"),
        step("run", model="guarded"),
        step("publish", url=url),
    )
    assert answer["status"] == "published"
    assert answer["warnings"] == []
    return url


@pytest.fixture
def explained(published: str, processes: Processes) -> Any:
    """Give a function that warms a process, lets it take steps and answers with its explanation."""

    def explain(*steps: Step, **environment: str) -> Answer:
        answers = processes.run(
            step("warm", url=published), *steps, step("explain", url=published), environment=environment
        )
        return answers[-1]

    return explain


def told(miss: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """Give the differences of one graph."""
    return [(d["name"], d["here"], d["there"]) for d in miss["differences"]]


def only_miss(answer: Answer) -> Mapping[str, Any]:
    """Give the one graph that missed."""
    assert answer["status"] == "graphs"
    assert answer["warnings"] == []
    (miss,) = answer["misses"]
    found: Mapping[str, Any] = miss
    return found


CONFIGURED = {
    "max_autotune as an option": (
        step("run", model="doubling", options={"max_autotune": True}),
        [("inductor_config[max_autotune]", "True", "False")],
    ),
    "a constant": (
        step("run", model="doubling", factor=3),
        [("gm", "mul = torch.ops.aten.mul.Tensor(arg0_1, 3)", "mul = torch.ops.aten.mul.Tensor(arg0_1, 2)")],
    ),
    "the batch size": (
        step("run", model="inference", rows=4),
        [("example_inputs[2].shape", "[4, 16]", "[8, 16]")],
    ),
}


@pytest.mark.parametrize("change", CONFIGURED)
def test_one_change_to_the_call_is_named_alone(change: str, explained: Any) -> None:
    """One thing changes in how the model is compiled or called: the explanation names it, and nothing else."""
    run, expected = CONFIGURED[change]
    miss = only_miss(explained(run))
    assert (miss["kind"], miss["role"], miss["reason"]) == ("inductor", "inference", "")
    assert told(miss) == expected


def test_mode_is_named_by_what_it_sets(explained: Any) -> None:
    """A mode of `torch.compile` is told by all the settings that it stands for."""
    names = [name for name, *_ in told(only_miss(explained(step("run", model="doubling", mode="max-autotune"))))]
    assert {"inductor_config[max_autotune]", "inductor_config[triton.cudagraphs]", "fx_kwargs[cudagraphs]"} <= {*names}
    assert len(names) <= 4


@pytest.mark.skipif(not KEY_HAS_THREADS, reason="this torch leaves the number of threads out of its keys")
def test_thread_count_is_named_alone(explained: Any) -> None:
    """A process with another number of threads is told just that."""
    answer = explained(step("call", name="set_num_threads", value=3), step("run", model="inference"))
    (difference,) = told(only_miss(answer))
    assert difference[:2] == ("cpp_runtime_thread_count", "3")
    assert "cpp_runtime_thread_count (torch.get_num_threads()) is 3 here" in answer["text"]


def test_matmul_precision_is_named_alone(explained: Any) -> None:
    """A process with another matmul precision is told just that, for each of its graphs."""
    answer = explained(
        step("call", name="set_float32_matmul_precision", value="high"),
        step("run", model="inference"),
        step("run", model="doubling"),
    )
    assert [[name for name, *_ in told(miss)] for miss in answer["misses"]] == [["cuda_matmul_settings"]] * 2
    assert answer["text"].count("cuda_matmul_settings") == 1
    assert "2 graphs alike" in answer["text"]


def test_variable_is_named_by_its_setting(explained: Any) -> None:
    """A variable of PyTorch's compiler is told by the setting that it makes."""
    answer = explained(step("run", model="doubling"), TORCHINDUCTOR_MAX_AUTOTUNE="1")
    assert told(only_miss(answer)) == [("inductor_config[max_autotune]", "True", "False")]


def test_default_dtype_is_named_with_what_follows(explained: Any) -> None:
    """Another default dtype makes other inputs: both are named."""
    answer = explained(step("call", name="set_default_dtype", value="float64"), step("run", model="doubling"))
    assert told(only_miss(answer))[0] == ("example_inputs[0].dtype", "float64", "float32")
    assert {name for name, *_ in told(only_miss(answer))} <= {"example_inputs[0].dtype", "default_dtype"}


def test_forward_and_backward_are_explained_apart(explained: Any) -> None:
    """Both graphs of a training step miss by a setting, and each is compared with the published one of its role."""
    answer = explained(step("run", model="training"), TORCHINDUCTOR_MAX_AUTOTUNE="1")
    assert [miss["role"] for miss in answer["misses"]] == ["forward", "backward"]
    assert {name for miss in answer["misses"] for name, *_ in told(miss)} == {"inductor_config[max_autotune]"}


def test_renamed_argument_is_a_miss_of_autograd_alone(explained: Any) -> None:
    """Inductor's graph hits where AOTAutograd's entry does not: that is said, and no graph is compared."""
    miss = only_miss(explained(step("run", model="renamed")))
    assert miss["kind"] == "aot_autograd"
    assert told(miss) == []
    assert "Inductor graphs are in the store" in miss["reason"]


def test_guard_is_named(explained: Any) -> None:
    """A size outside the published graph's guard is told by the guards of both."""
    ((name, here, there),) = told(only_miss(explained(step("run", model="guarded", rows=128))))
    assert name == "guard"
    assert "65 <=" in here
    assert "<= 64" in there


def test_nothing_missed(explained: Any) -> None:
    """A process that hit everything is told so."""
    answer = explained(step("run", model="inference"), step("run", model="training"), step("run", model="guarded"))
    assert (answer["status"], answer["misses"], answer["warnings"]) == ("covered", [], [])
    assert "nothing missed" in answer["reason"]
    assert answer["graphs"] == 4


def test_nothing_compiled(explained: Any) -> None:
    """A process that has compiled nothing is told so."""
    answer = explained()
    assert answer["status"] == "empty"
    assert "compiled no graph" in answer["text"]


def test_process_that_did_not_warm_is_told_so(published: str, processes: Processes) -> None:
    """What was compiled without a warm start would have hit."""
    *_, answer = processes.run(step("run", model="doubling"), step("explain", url=published))
    assert answer["status"] == "covered"
    assert "call warm() before" in answer["reason"]


def test_explaining_does_not_disturb_publishing(processes: Processes, tmp_path: Path) -> None:
    """What is published after an explanation is whole, and what this process published still counts as missed."""
    store = str(tmp_path / "store")
    processes.run(step("run", model="doubling"), step("publish", url=store))
    *_, before, published, after = processes.run(
        step("warm", url=store),
        step("run", model="doubling", factor=3),
        step("explain", url=store),
        step("publish", url=store),
        step("explain", url=store),
    )
    assert published["status"] == "published"
    assert told(only_miss(before)) == told(only_miss(after)) != []
    warmed, ran = processes.run(step("warm", url=store), step("run", model="doubling", factor=3))
    assert warmed["artifacts"] == {"inductor": 2, "aot_autograd": 2}
    assert (ran["fx_miss"], ran["aot_miss"]) == (0, 0)


@pytest.mark.skipif(HERE not in {"AVX512", "AVX2"}, reason="ATEN_CPU_CAPABILITY lowers AVX512 and AVX2 only")
def test_other_environment_is_told_by_its_facts(explained: Any) -> None:
    """Where nothing is published for this environment, the facts that differ from the nearest one are named."""
    answer = explained(ATEN_CPU_CAPABILITY="default")
    assert answer["status"] == "environment"
    facts = {mismatch["fact"]: (mismatch["here"], mismatch["there"]) for mismatch in answer["mismatches"]}
    assert facts.keys() == {"cpu_capability", "cpu_extensions"}
    assert facts["cpu_capability"][1] == HERE
    assert f"cpu_capability is {facts['cpu_capability'][0]} here, {HERE} there" in answer["text"]


def test_empty_store_is_told_from_a_foreign_one(processes: Processes, tmp_path: Path) -> None:
    """Where nothing at all is published, that is said."""
    (answer,) = processes.run(step("explain", url=str(tmp_path / "store")))
    assert answer["status"] == "environment"
    assert "nor for another environment" in answer["reason"]


def test_disabled_and_failing_are_results(processes: Processes) -> None:
    """Switched off, or with a store that cannot be used, an explanation is a result; strict raises the fault."""
    (disabled,) = processes.run(step("explain"), environment={"MEGACACHE_DISABLE": "1"})
    assert disabled["status"] == "disabled"
    failed, raised = processes.run(step("explain", url="nowhere://x"), step("explain", url="nowhere://x", strict=True))
    assert (failed["status"], failed["error"]) == ("unavailable", "SettingsError")
    assert raised["raised"] == "SettingsError"


@pytest.mark.nightly
def test_neither_data_nor_explanation_tells_where_it_was_made(processes: Processes, tmp_path: Path) -> None:
    """Paths and the names of host and user, here in two settings of PyTorch, reach neither store nor explanation."""
    store, host = tmp_path / "store", socket.gethostname()
    compiler = tmp_path / f"home-of-{USER}" / host / "g++"
    compiler.parent.mkdir(parents=True)
    compiler.symlink_to("/usr/bin/g++")
    folders = [str(processes.new_folder()) for _ in range(2)]
    told_of = {"LOGNAME": USER, "CXX": str(compiler), "TORCH_COMPILE_CACHE_KEY_TAG": f"{USER}@{host}:{folders[0]}/x"}
    run = step("run", model="doubling")
    processes.run(run, step("publish", url=str(store)), environment=told_of, folder=folders[0])
    told_of["TORCH_COMPILE_CACHE_KEY_TAG"] = f"{host} {USER} of {REPOSITORY}"
    _, answer = processes.run(run, step("explain", url=str(store)), environment=told_of, folder=folders[1])
    assert {name for name, *_ in told(only_miss(answer))} == {"cache_key_tag"}
    for text in (explain_data(store).decode(errors="replace"), str(answer["misses"]), answer["text"]):
        for secret in (USER, str(REPOSITORY), *folders, str(tmp_path)):
            assert secret not in text.replace(f"file://{store}", "").replace(str(store), "")
        assert not re.search(rf"(?<![A-Za-z0-9]){re.escape(host)}(?![A-Za-z0-9])", text)
    keys = parse_keys(explain_data(store))
    assert text_of(keys[0], "cache_key_tag") == "<user>@<host>:<path>"
    assert "g++" not in text_of(keys[0], "inductor_config[cpp.cxx]")


def test_explain_data_is_small(published: str) -> None:
    """Explain data of five graphs is stored in less than 16 KB, of which all but some hundreds of bytes are shared."""
    store = open_store(Path(published).as_uri())
    (manifest,) = [unseal(store.read(e.key, size=e.size)) for e in store.list() if e.key.endswith(".msgpack")]
    (ref,) = [ref for ref in manifest.chunks if ref.part == EXPLAIN_PART]
    assert len(parse_keys(explain_data(Path(published)))) == 5
    assert ref.stored_size < 16_000


def text_of(key: GraphKey, name: str) -> str:
    """Give the text of one component."""
    return key.components[name].text


def explain_data(folder: Path) -> bytes:
    """Read the explain data of the one bundle in a store on disk."""
    from megacache._bundle import open_chunk

    store = open_store(folder.as_uri())
    (entry,) = [entry for entry in store.list() if entry.key.endswith(".msgpack")]
    manifest = unseal(store.read(entry.key, size=entry.size))
    (ref,) = [ref for ref in manifest.chunks if ref.part == EXPLAIN_PART]
    place = EnvironmentPrefix("/".join(entry.key.split("/")[:2]))
    return open_chunk(ref, store.read(place.chunk(ref.digest), size=ref.stored_size))
