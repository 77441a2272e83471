"""What the README and the documents beside it say is so."""

import ast
import os
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path

import click
import pytest
import s3fs

import megacache
from megacache import ExplainStatus, PublishStatus, WarmStatus, _settings
from megacache._cli.app import COMMANDS, app
from tests.kit.processes import REPOSITORY, Processes
from tests.kit.servers.moto import MotoServer

README = (REPOSITORY / "README.md").read_text()
MIGRATING = (REPOSITORY / "examples" / "migrating.md").read_text()
CONTRIBUTING = REPOSITORY / ".github" / "CONTRIBUTING.md"
BLOCKS = re.findall(r"```python\n(.*?)```", README + MIGRATING, re.DOTALL)
CONTEXT = click.Context(app, info_name="megacache", **app.context_settings)
COMMAND_LINE = README.partition("### Command line")[2].partition("\n## ")[0]
ROWS = dict(re.findall(r"^\| `(\w+)(.*)\|$", COMMAND_LINE, re.MULTILINE))
SHARED = re.findall(r"^\| (`--.*?) \|.*\| (.*?) \|$", COMMAND_LINE, re.MULTILINE)
OPTION = re.compile(r"`(--[a-z-]+)`")
COMMAND_LINES = re.findall(
    r"^megacache (.*)$", "".join(re.findall(r"```console\n(.*?)```", README, re.DOTALL)), re.MULTILINE
)
PRELUDE = """
import torch, megacache
def model(x): return torch.relu(x * 2 + 1)
x = torch.linspace(0, 1, 32)
endpoint = __import__("os").environ["AWS_ENDPOINT_URL"]
torch.set_grad_enabled(False)
"""


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
    """Read what contributors are told, which lies in a checkout and in no copy that is made without it."""
    if not CONTRIBUTING.exists():
        pytest.skip(f"{CONTRIBUTING} is not among the files that are tested")
    return CONTRIBUTING.read_text()


def sessions() -> set[str]:
    """Name the sessions of nox."""
    functions = ast.parse((REPOSITORY / "noxfile.py").read_text()).body
    return {
        one.name
        for one in functions
        if isinstance(one, ast.FunctionDef) and "nox.session" in map(ast.unparse, one.decorator_list)
    }


def shared_options(name: str) -> list[str]:
    """Name the options that the README says a command shares with others."""
    return [
        option
        for options, commands in SHARED
        for option in OPTION.findall(options)
        if (f"`{name}`" in commands) != commands.startswith("all but ")
    ]


@pytest.mark.parametrize("block", BLOCKS, ids=range(len(BLOCKS)))
def test_every_python_block_runs(block: str, bucket: dict[str, str], processes: Processes) -> None:
    """Each block of Python runs as it stands, in a fresh process, after a model, an input and an endpoint are given."""
    compiled = "" if "model(x)" in block else "torch.compile(model)(x)\n"
    done = subprocess.run(
        [sys.executable, "-c", PRELUDE + compiled + block],
        env={**os.environ, **bucket, "TORCHINDUCTOR_CACHE_DIR": str(processes.new_folder())},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "failed" not in done.stderr


def test_every_session_named_exists() -> None:
    """Each `nox -s` that the README names is a session; the one that runs the tests is among them."""
    named = set(re.findall(r"nox -s (\w+)", README))
    assert named <= sessions()
    assert "tests" in named


def test_contributors_are_told_of_every_session(contributing: str) -> None:
    """The document for contributors names each session of nox, and none that is not there."""
    assert set(re.findall(r"nox -s (\w+)", contributing)) == sessions()


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


@pytest.mark.parametrize("name", ["README.md", "examples/README.md", "examples/migrating.md", CONTRIBUTING])
def test_every_link_leads_somewhere(name: Path | str, contributing: str) -> None:
    """Each link of a document within the repository is to a file that is there, and to a heading that it has."""
    del contributing
    document = REPOSITORY / name
    links = re.findall(r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", document.read_text())
    for path, heading in links:
        target = document.parent / path if path else document
        assert target.exists(), path
        headings = re.findall(r"^#+ (.*)$", target.read_text(), re.MULTILINE) if heading else []
        assert heading in ["", *(one.lower().replace(" ", "-") for one in headings)]
    assert links


def test_every_status_is_explained() -> None:
    """The tables of the README name every status there is."""
    for status in [*WarmStatus, *PublishStatus, *ExplainStatus]:
        assert f"`{status.value}`" in README


def test_every_variable_is_explained() -> None:
    """The README names every variable that megacache reads."""
    source = Path(_settings.__file__).read_text()
    for variable in set(re.findall(r"MEGACACHE_[A-Z_]+", source)):
        assert f"`{variable}`" in README


def test_every_command_is_in_the_table() -> None:
    """The table of commands has a row for each command, and no other."""
    assert list(ROWS) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_table_names_arguments_and_options(name: str) -> None:
    """The row of a command names its arguments in their order, and with the shared options each option and no other."""
    command = app.get_command(CONTEXT, name)
    assert command is not None
    options = [one for one in command.params if isinstance(one, click.Option)]
    arguments, _, named = ROWS[name].replace("\\|", "|").partition("`")
    _, *usage = command.collect_usage_pieces(click.Context(command, parent=CONTEXT))
    assert arguments.split() == " ".join(usage).split()
    assert sorted([*OPTION.findall(named.rpartition(" | ")[2]), *shared_options(name)]) == sorted(
        opt for one in options for opt in [*one.opts, *one.secondary_opts]
    )


def test_shared_options_are_of_commands() -> None:
    """The table of shared options names no command that is not there."""
    assert {name for _, commands in SHARED for name in re.findall(r"`(\w+)`", commands)} <= set(COMMANDS)
    assert len(SHARED) == COMMAND_LINE.count("\n| `--")


def test_every_exit_code_is_in_the_table() -> None:
    """The README names the exit codes that `megacache --help` names."""
    told = re.findall(r"^ +(\d+)  ", str(app.help), re.MULTILINE)
    assert re.findall(r"^\| (\d+) \|", README, re.MULTILINE) == told
    assert told[0] == "0"


@pytest.mark.parametrize("line", COMMAND_LINES)
def test_every_command_line_is_accepted(line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each command line of the README has the arguments and options that its command takes."""
    monkeypatch.chdir(tmp_path)
    for name in ("flux.bin", "staging.pem.pub"):
        (tmp_path / name).touch()
    name, *words = shlex.split(line, comments=True)
    command = app.get_command(CONTEXT, name)
    assert command is not None
    assert command.make_context(name, words, parent=CONTEXT).args == []
