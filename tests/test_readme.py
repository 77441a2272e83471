"""What the README says is so."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import click
import pytest
import s3fs

from megacache import ExplainStatus, PublishStatus, WarmStatus
from megacache._cli._app import COMMANDS, app
from tests.processes import REPOSITORY, Processes
from tests.servers.moto import MotoServer

README = (REPOSITORY / "README.md").read_text()
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
CONTEXT = click.Context(app, info_name="megacache")
ROWS = dict(re.findall(r"^\| `(\w+)(.*)\|$", README.partition("### Command line")[2], re.MULTILINE))
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
    }


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
    """Each `nox -s` that the README names is a session."""
    noxfile = (REPOSITORY / "noxfile.py").read_text()
    sessions = set(re.findall(r"@nox\.session\ndef (\w+)", noxfile))
    named = set(re.findall(r"nox -s (\w+)", README))
    assert named <= sessions
    assert named


def test_every_status_is_explained() -> None:
    """The tables of the README name every status there is."""
    for status in [*WarmStatus, *PublishStatus, *ExplainStatus]:
        assert f"`{status.value}`" in README


def test_every_variable_is_explained() -> None:
    """The README names every variable that megacache reads."""
    import megacache._settings

    source = Path(megacache._settings.__file__).read_text()
    for variable in set(re.findall(r"MEGACACHE_[A-Z_]+", source)):
        assert f"`{variable}`" in README


def test_every_command_is_in_the_table() -> None:
    """The table of commands has a row for each command, and no other."""
    assert list(ROWS) == list(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_table_names_arguments_and_options(name: str) -> None:
    """The row of a command names its arguments in their order and each of its options, and no other."""
    command = app.get_command(CONTEXT, name)
    assert command is not None
    options = [one for one in command.params if isinstance(one, click.Option)]
    arguments, _, named = ROWS[name].replace("\\|", "|").partition("`")
    assert arguments.split() == " ".join(command.collect_usage_pieces(click.Context(command))[1:]).split()
    assert sorted(re.findall(r"`(--[a-z-]+)`", named.rpartition(" | ")[2])) == sorted(
        opt for one in options for opt in [*one.opts, *one.secondary_opts]
    )


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
