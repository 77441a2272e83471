"""A run of the benchmark measures where it is told to, ends in time, and says what it left out."""

import logging
import subprocess
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from examples.benchmark import __main__ as command
from examples.benchmark import first_output, imports, machine, ptxas, requests, transfers
from examples.benchmark.agenda import Record
from examples.benchmark.bench import Bench, OutOfTimeError, ProcessFailedError
from examples.benchmark.models import GPU_MODELS, MODELS, build
from examples.benchmark.options import parsed, sections
from examples.benchmark.results import read
from examples.benchmark.samples import Failure, Sample, Step
from examples.benchmark.variants import VARIANTS, Stored
from examples.benchmark.variants.variant import default_folder
from tests.kit.servers.moto import MotoServer

FACTS = {"date": "2026-01-01"}


@pytest.mark.parametrize(
    ("gpu", "line", "devices"),
    [
        ("", "", ("cpu",)),
        ("a GPU", "", ("cuda",)),
        ("a GPU", "--device cpu", ("cpu",)),
        ("a GPU", "--device all", ("cuda", "cpu")),
        ("a GPU", "--only B", ("cpu",)),
        ("a GPU", "--only A", ("cuda",)),
    ],
)
def test_device_is_the_gpu_unless_told_otherwise(
    monkeypatch: pytest.MonkeyPatch, gpu: str, line: str, devices: tuple[str, ...]
) -> None:
    """Where torch sees a GPU it is measured, and first; what no device has a part in goes with the CPU."""
    monkeypatch.setattr(machine, "gpu", lambda: gpu)
    assert parsed(line.split()).devices == devices


@pytest.mark.parametrize(
    ("gpu", "line"), [("", "--device cuda"), ("", "--device all"), ("x", "--device cuda --only D")]
)
def test_device_that_cannot_be_measured_is_refused(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], gpu: str, line: str
) -> None:
    """Asking for a GPU that is not there, or for what it has no part in, is an error that says what to do."""
    monkeypatch.setattr(machine, "gpu", lambda: gpu)
    with pytest.raises(SystemExit):
        parsed(line.split())
    assert "use --device cpu" in capsys.readouterr().err


def test_gpu_gets_the_first_outputs_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is transferred is measured once, beside the CPU; the GPU begins with the case that fal has published."""
    monkeypatch.setattr(machine, "gpu", lambda: "a GPU")
    options = parsed(["--device", "all"])
    assert (sections(options, "cuda"), sections(options, "cpu")) == ("A", "ABCDE")
    assert build(GPU_MODELS[0], size="quick", device="cpu").options == {"mode": "reduce-overhead", "fullgraph": True}
    assert set(MODELS) < set(GPU_MODELS)


def test_each_section_plans_what_it_measures(tmp_path: Path, moto_server: MotoServer) -> None:
    """All that is planned is named once, without S3 where there is none."""
    without = Bench(rounds=2, quick=True, folder=tmp_path, models=("gpt", "llama"), variants=tuple(VARIANTS))
    with_s3 = replace(without, moto=moto_server)
    for section in (first_output, transfers, requests, imports):
        plan = section.planned(with_s3)
        assert len(set(plan)) == len(plan) > 0
    assert len(first_output.planned(without)) == 2 * 2 * len(VARIANTS)
    assert {step.case.partition(", ")[2] for step in transfers.planned(without)} == {"torch", "disk"}
    assert not requests.planned(without)


def test_what_costs_another_compilation_comes_last_in_a_case(tmp_path: Path) -> None:
    """In the first round the variants that publish from one process precede those that need one of their own."""
    bench = Bench(rounds=1, quick=True, folder=tmp_path, models=("gpt",), variants=tuple(VARIANTS))
    assert [step.variant for step in first_output.planned(bench)][-2:] == ["fal", "redis"]


def record(path: Path) -> Record:
    """Plan one round of three variants of two models."""
    planned = [Step("first output", case, name, 0) for case in ("gpt", "llama") for name in ("cold", "copy", "fal")]
    return Record(path=path, facts=FACTS, planned=planned, lacking={"redis": "for lack of program x"}, budget=500)


def test_each_sample_is_in_the_file_at_once(tmp_path: Path) -> None:
    """A run that is killed has left every sample, and the names of what it did not reach or could not measure."""
    kept = record(tmp_path / "gpu.json")
    kept.write()
    short = "not reached within 500 s"
    assert read(kept.path).facts["left_out"] == {
        "redis": "for lack of program x",
        "first output, gpt": short,
        "first output, llama": short,
    }
    one = Sample(section="first output", case="gpt", variant="cold", round=0, values={"total": 1.0})
    kept.add(one)
    kept.add(Failure(step=Step("first output", "gpt", "copy", 0), reason="of a fault"))
    assert kept.failed
    assert read(kept.path).samples == [one]
    assert read(kept.path).facts["left_out"] == {
        "redis": "for lack of program x",
        "first output, gpt: copy": "which failed: of a fault",
        "first output, gpt: fal": short,
        "first output, llama": short,
    }


def test_no_process_outlives_the_budget(tmp_path: Path) -> None:
    """A process is ended when the time of the run is over, and none is started after that."""
    bench = Bench(rounds=1, quick=True, folder=tmp_path, deadline=time.monotonic() + 0.2)
    with pytest.raises(OutOfTimeError):
        bench.run("save", {"corpus": "", "blob": None})
    with pytest.raises(OutOfTimeError):
        bench.run("no such task", {})
    assert not bench.tmp.parent.exists()


@pytest.mark.parametrize("variants", [["cold", "megacache"], ["megacache-s3"]])
def test_servers_run_where_they_are_used(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, variants: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """S3 is served for a variant that needs it, and for no other; a run without time says what it did not reach."""
    served: list[Path] = []

    @contextmanager
    def serve(folder: Path) -> Iterator[None]:
        served.append(folder)
        yield

    monkeypatch.setattr(command, "serve", serve)
    line = ["--device", "cpu", "--only", "A", "--models", "gpt", "--rounds", "1", "--budget", "0"]
    assert command.main([*line, "--results", str(tmp_path), "--variants", *variants]) == 0
    assert bool(served) == ("megacache-s3" in variants)
    assert read(tmp_path / "cpu.json").facts["left_out"] == {"first output, gpt": "not reached within 0 s"}
    assert "Left out: `first output, gpt`, not reached within 0 s." in capsys.readouterr().out


def test_what_needs_s3_is_left_out_without_moto(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without moto, all else is measured, and what it would have served is named."""
    monkeypatch.setattr(VARIANTS["megacache-s3"].__class__, "packages", ("no_such_package",))
    line = [
        "--device",
        "cpu",
        "--rounds",
        "1",
        "--budget",
        "0",
        "--models",
        "gpt",
        "--variants",
        "cold",
        "megacache-s3",
    ]
    command.main([*line, "--results", str(tmp_path)])
    left_out = read(tmp_path / "cpu.json").facts["left_out"]
    lacking = {name for name, reason in left_out.items() if reason == "for lack of Python package no_such_package"}
    assert lacking == {"megacache-s3", "transfers, s3", "requests"}
    assert "first output, gpt" in left_out


def test_one_failure_leaves_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A preparation that fails is tried once and fails its variants; those of another one are measured."""
    tried = []

    def run(_: Bench, task: str, options: Mapping[str, object], **__: object) -> dict[str, float]:
        tried.append(task)
        if options.get("variants") == ["cold", "copy"]:
            raise ProcessFailedError("prepare ended with 1: Oh")
        return {"graphs": 1, **dict.fromkeys(first_output._MOMENTS, 0.0)}

    caplog.set_level(logging.CRITICAL, "benchmark")
    monkeypatch.setattr(Bench, "run", run)
    bench = Bench(rounds=1, quick=True, folder=tmp_path, models=("gpt",), variants=("cold", "copy", "fal"))
    found = list(first_output.measure(bench))
    assert [type(one) for one in found] == [Failure, Failure, Sample]
    assert tried == ["prepare", "prepare", "first_output"]


def test_children_find_the_packages_of_the_caller(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """PYTHONPATH reaches each process, a relative one, too; what would configure megacache or torch does not."""
    package = tmp_path / "path" / "sitecustomize.py"
    package.parent.mkdir()
    package.write_text("import os\nos._exit(7 if 'MEGACACHE_URL' not in os.environ else 8)")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", "path")
    monkeypatch.setenv("MEGACACHE_URL", "memory://")
    with pytest.raises(ProcessFailedError, match="ended with 7"):
        Bench(rounds=1, quick=True, folder=tmp_path).run("save", {})


def test_commit_is_unknown_without_git(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A machine without git is no obstacle."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine.facts()["commit"] == "unknown"


@pytest.mark.parametrize("on_gpu", [True, False])
def test_copy_brings_the_folder_of_triton(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, *, on_gpu: bool) -> None:
    """The copied folder is torch's own and, where Triton has used one, also that in the home folder."""
    stored, copied = Stored(folder=str(tmp_path)), VARIANTS["copy"]
    for name in ("before", "after"):
        (tmp_path / name / "home").mkdir(parents=True)
    monkeypatch.delenv("TRITON_HOME", raising=False)

    def enter(name: str) -> tuple[Path, Path]:
        monkeypatch.setenv("HOME", str(tmp_path / name / "home"))
        monkeypatch.setattr("tempfile.tempdir", str(tmp_path / name / "tmp"))
        folder = default_folder(tmp_path / name / "tmp")
        return folder / "library.so", tmp_path / name / "home/.triton/cache/ABC/cuda_utils.so"

    written = enter("before")[: 2 if on_gpu else 1]
    with copied.prepared(stored):
        for file in written:
            file.parent.mkdir(parents=True)
            file.touch()
    restored = enter("after")
    with copied.started(stored):
        assert [file.exists() for file in restored] == [True, on_gpu]


def test_kernels_are_counted_by_runs_of_ptxas(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A compilation counts, asking for the version does not, and the program that is meant does the work."""
    real = tmp_path / "real ptxas"
    real.write_text('#!/bin/sh\necho "$@"')
    real.chmod(0o755)
    monkeypatch.setenv("TRITON_PTXAS_PATH", str(real))
    monkeypatch.setenv(ptxas.RUNS, str(tmp_path / "log"))
    script = ptxas.wrapped(tmp_path)["TRITON_PTXAS_PATH"]
    assert ptxas.runs() == 0
    for words in (["--version"], ["-v", "kernel.ptx"], ["-v", "other.ptx"]):
        assert subprocess.check_output([script, *words], text=True).split() == words
    assert ptxas.runs() == 2
