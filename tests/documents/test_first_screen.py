"""What the README shows first is so: six lines that start warm, the figures, and what is printed after a miss."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from examples.benchmark.first_output import SECTION
from examples.benchmark.models import MODELS
from examples.benchmark.results import read
from examples.benchmark.samples import series, value
from tests.kit.documents import README, alike, blocks
from tests.kit.processes import REPOSITORY, Processes

SIX_LINES, _, QUESTIONS = blocks(README, "python")
_, ANSWERS, _ = blocks(README, "text")
URL = "s3://bucket/flux/v1"
MODEL = """
import torch
torch.set_num_threads({threads})
torch.manual_seed(0)
model = torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.GELU(), torch.nn.Linear(64, 10))
x = torch.ones(4, 64)
"""


def started(processes: Processes, url: Path, then: str, *, threads: int) -> str:
    """Run the six lines in a new process with an empty cache folder, and something after them; give what it printed."""
    program = (MODEL.format(threads=threads) + SIX_LINES + then).replace(URL, str(url))
    done = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(processes.new_folder())},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> Path:
    """Publish by the six lines."""
    folder = tmp_path_factory.mktemp("published")
    started(Processes(folder / "processes", probes), folder / "store", "", threads=2)
    return folder / "store"


def test_six_lines_start_warm(processes: Processes, published: Path) -> None:
    """The second process that runs them finds the graph in both caches, of a model whose parameters need gradients."""
    told = started(processes, published, "print(megacache.receipt())", threads=2)
    assert re.match(r"warm: Inductor 1 of 1 graphs hit, AOTAutograd 1 of 1 graphs hit;", told), told


def test_answers_after_a_miss(processes: Processes, published: Path) -> None:
    """With another number of threads, the questions of the README get its answers, but for numbers and ids."""
    told = started(processes, published, QUESTIONS, threads=1)
    assert alike(told) == alike(ANSWERS)
    assert "is 1 here, 2 there" in told


def shares(other: str) -> tuple[str, str]:
    """Give the least and the most of what a warm start took of the time of another start, in percent."""
    samples = read(REPOSITORY / "examples" / "benchmark" / "results" / "cpu.json").of(SECTION)
    totals = [[series(samples, model, one, value("total")) for one in ("megacache", other)] for model in MODELS]
    found = [round(100 * (ours / theirs).median) for ours, theirs in totals]
    return str(min(found)), str(max(found))


def test_figures_are_those_that_were_measured() -> None:
    """The shares of time in the README are those of the kept results: of a cold start, a plain one and a copy."""
    told = README.read_text().partition("On 2 CPU cores")[2].partition("nox")[0]
    assert re.findall(r"(\d+)\W(\d+) %", told) == [shares(other) for other in ("cold", "plain", "copy")]
