"""What the README and the documents beside it say is so."""

import ast
import inspect
import itertools
import re
import textwrap
import tomllib
from pathlib import Path

import pytest
import s3fs

import megacache
from megacache import ExplainStatus, PublishStatus, WarmStatus
from tests.kit.documents import DOCUMENTS
from tests.kit.processes import REPOSITORY, Processes, step
from tests.kit.servers.moto import MotoServer

README = (REPOSITORY / "README.md").read_text()
GUIDES = sorted(path.relative_to(REPOSITORY).as_posix() for path in (REPOSITORY / "examples" / "guides").glob("*.md"))
TEXT = "\n".join([README, *((REPOSITORY / guide).read_text() for guide in GUIDES)])
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
MOST_LINES = 150
PRELUDE = """
import logging, os, sys, torch, megacache
logging.basicConfig(level=logging.WARNING)
model = torch.nn.Sequential(torch.nn.Linear(32, 8), torch.nn.GELU())  # whose parameters need gradients
x = torch.linspace(0, 1, 32)
endpoint = os.environ["AWS_ENDPOINT_URL"]
"""
COMPILED = "with torch.no_grad(): torch.compile(model)(x)\n"


@pytest.fixture(scope="module")
def bucket(moto_server: MotoServer) -> dict[str, str]:
    """Make the bucket that the README speaks of, and give the variables that lead there."""
    options = {name: str(value) for name, value in moto_server.server.storage_options.items()}
    s3fs.S3FileSystem(**options, skip_instance_cache=True).mkdir("bucket")
    return {
        "AWS_ENDPOINT_URL": options["endpoint_url"],
        "AWS_ACCESS_KEY_ID": options["key"],
        "AWS_SECRET_ACCESS_KEY": options["secret"],
        "MEGACACHE_URL": "s3://bucket/migrated",
    }


@pytest.fixture(scope="module")
def contributing() -> str:
    """Read what contributors are told."""
    return (REPOSITORY / ".github" / "CONTRIBUTING.md").read_text()


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_python_block_runs(block: str, bucket: dict[str, str], processes: Processes) -> None:
    """Each block of Python runs as it stands, after a model, an input and an endpoint are given."""
    compiled = "" if re.search(r"model\)?\(x\)", block) else COMPILED
    child = processes.start(step("execute", code=PRELUDE + compiled + block), environment=bucket)
    child.answers()
    assert "failed" not in child.stderr
    assert "AOTAutograd entry" not in child.stderr


def modules() -> set[str]:
    """Name the modules and packages of megacache."""
    folder = Path(megacache.__file__).parent
    found = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    return found - {"__init__"}


def test_map_names_every_module(contributing: str) -> None:
    """The map of the package names each module once, and none that is not there."""
    named = re.findall(r"\*\*`(\w+)`\*\*", contributing)
    assert sorted(named) == sorted(modules())


def test_map_has_the_order_of_the_layers(contributing: str) -> None:
    """Each row of the map is one layer, in the order that import-linter holds."""
    rows = [re.findall(r"\*\*`(\w+)`\*\*", line) for line in contributing.splitlines() if line.startswith("| **`")]
    contracts = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    (contract,) = [one for one in contracts if one["containers"] == ["megacache"]]
    assert [sorted(row) for row in rows] == [sorted(layer.split(" | ")) for layer in contract["layers"]]


def test_readme_stops() -> None:
    """It is short enough to be read."""
    assert len(README.splitlines()) <= MOST_LINES


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda document: document.name)
def test_every_link_leads_somewhere(document: Path) -> None:
    """Each link of a document within the repository is to a file that is there, and to a heading that it has."""
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text())
    for path, heading in links:
        target = document.parent / path if path else document
        assert target.exists(), path
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if heading else []
        assert heading in ["", *(one.lower().replace(" ", "-") for one in headings)]


def test_every_guide_is_listed() -> None:
    """The list of guides leads to each of them."""
    listed = (REPOSITORY / "examples" / "README.md").read_text()
    assert [guide for guide in GUIDES if f"({guide.removeprefix('examples/')})" not in listed] == []


def test_every_file_named_exists() -> None:
    """The tests that documents call as their witnesses are there."""
    text = "".join(document.read_text() for document in DOCUMENTS)
    assert [path for path in re.findall(r"`(tests/[a-z_/]+\.py)`", text) if not (REPOSITORY / path).exists()] == []


@pytest.mark.parametrize("status", [WarmStatus, PublishStatus, ExplainStatus])
def test_every_status_says_what_it_means(status: type[WarmStatus | PublishStatus | ExplainStatus]) -> None:
    """Each status has a docstring where it is defined."""
    body = ast.parse(textwrap.dedent(inspect.getsource(status))).body[0]
    assert isinstance(body, ast.ClassDef)
    for one, after in itertools.pairwise(body.body):
        assert not isinstance(one, ast.Assign) or isinstance(after, ast.Expr), ast.unparse(one)
