"""The command line as a whole: help, suggestions, exit codes, completion, and that it does without PyTorch."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

import megacache
from megacache import errors
from megacache._cli import exit_codes, main
from megacache._cli.app import COMMANDS, app
from megacache._cli.exit_codes import exit_code_of
from megacache._cli.output import age_text, size_text
from tests.kit.builders import artifact, bundle, environment, open_store, upload
from tests.kit.command import PROGRAM, in_child, on_terminal, run
from tests.kit.processes import REPOSITORY
from tests.kit.servers import Server

CONTEXT = click.Context(app, info_name="megacache", **app.context_settings)
FAULTS = [one for one in vars(errors).values() if isinstance(one, type) and issubclass(one, errors.MegacacheError)]
WITHOUT_TORCH = """
import json, sys
sys.modules["torch"] = None
from megacache._cli.app import app
codes = [app(arguments, prog_name="megacache", standalone_mode=False) or 0 for arguments in json.loads(sys.argv[1])]
print("codes", json.dumps(codes), sys.modules["torch"])
"""


@pytest.fixture
def url(tmp_path: Path) -> Path:
    """Make a store with one bundle."""
    upload(open_store((tmp_path / "store").as_uri()), bundle([artifact()]))
    return tmp_path / "store"


def command(name: str) -> click.Command:
    """Load a command."""
    found = app.get_command(CONTEXT, name)
    assert found is not None
    return found


@pytest.mark.parametrize("name", COMMANDS)
def test_help_has_an_example_that_would_run(name: str) -> None:
    """The help of each command tells what it does and gives an example, whose arguments the command accepts."""
    told = run(name, "--help").stdout
    (example,) = re.findall(rf"Example:\n +megacache {name}\b(.*)", told)
    words = example.partition(" > ")[0].partition(" >> ")[0].split()
    existing = [str(REPOSITORY / "README.md") if word == "flux.bin" else word for word in words]
    assert command(name).make_context(name, existing, parent=CONTEXT).params is not None
    assert run(name, "-h").stdout == told


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_is_explained(name: str) -> None:
    """Each option has a help text, and is named once."""
    options = [one for one in command(name).params if isinstance(one, click.Option)]
    assert [one.name for one in options if not one.help] == []
    assert len({opt for one in options for opt in one.opts}) == sum(len(one.opts) for one in options)


def test_help_lists_every_command_and_exit_code() -> None:
    """Without arguments, or with `--help`, all commands and exit codes are told."""
    told = run("--help").stdout
    assert [name for name in COMMANDS if not re.search(rf"^  {name} ", told, re.MULTILINE)] == []
    codes = [code for name, code in vars(exit_codes).items() if name.startswith("EXIT_")]
    assert re.findall(r"^ +(\d+) ", told, re.MULTILINE) == list(map(str, [0, *codes]))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_says_of_a_command_what_it_says_of_itself(name: str) -> None:
    """The list of commands holds the first sentence of the help of each."""
    assert COMMANDS[name][1] == command(name).get_short_help_str(limit=120)


def test_help_says_all_of_each_command_in_its_line() -> None:
    """In the list of commands none is cut off, on a terminal of 80 columns."""
    listed = run("--help").stdout.partition("Commands:\n")[2].splitlines()
    assert len(listed) == len(COMMANDS)
    assert [line for line in listed if line.endswith("...")] == []


def test_version_is_told() -> None:
    """`--version` prints name and version."""
    assert run("--version").stdout == f"megacache, version {megacache.__version__}\n"


@pytest.mark.parametrize(
    ("typed", "meant"),
    [("sl", "ls"), ("lss", "ls"), ("LS", "ls"), ("inspct", "inspect"), ("copy", "cp"), ("publish", "push")],
)
def test_right_command_is_told(typed: str, meant: str) -> None:
    """An unknown command is answered with the one that it is most like."""
    assert f"Error: No such command '{typed}'. Did you mean '{meant}'?\n" in run(typed, code=2).stderr


def test_strange_command_has_no_likeness() -> None:
    """A word that is like no command is refused without a guess."""
    assert "Did you mean" not in run("xyzzy", code=2).stderr


def test_right_option_is_told() -> None:
    """A misspelt option is answered with the right one."""
    assert "--bundles" in run("ls", "--bundle", code=2).stderr


@pytest.mark.parametrize(
    ("typed", "told"),
    [
        ("s3:bucket/flux", "did you mean s3://bucket/flux?"),
        ("s3:/bucket/flux", "did you mean s3://bucket/flux?"),
        ("gs//bucket/flux", "did you mean gs://bucket/flux?"),
        ("file:/var/cache", "did you mean file:///var/cache?"),
        ("s4://bucket/flux", "use a URL that fsspec knows"),
        ("/var/cache/flux?epoch=2", "use another URL, such as one that ends in /v2"),
        ("", "the URL is empty"),
        ("  ", "the URL is empty"),
    ],
)
def test_right_url_is_told(typed: str, told: str) -> None:
    """A URL that lacks a colon or a slash is not taken for a folder, and an empty one not for the default store."""
    assert told in run("ls", "--no-here", typed, code=2).stderr


def test_missing_folder_is_told(tmp_path: Path) -> None:
    """Of a folder that is not there it is said that it is not."""
    assert "the folder does not exist" in run("ls", "--no-here", tmp_path / "none").stderr


@pytest.mark.parametrize("name", ["ls", "verify", "inspect"])
def test_url_above_caches_is_told(name: str, url: Path) -> None:
    """A URL above that of a cache is answered with the cache."""
    options = ["--no-here"] if name == "ls" else []
    assert f"did you mean {url.parent}/store?" in run(name, url.parent, *options, code=2).stderr


def test_variable_names_the_cache(url: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no URL is given, `MEGACACHE_URL` is read."""
    monkeypatch.setenv("MEGACACHE_URL", str(url))
    assert "1 inductor" in run("ls", "--no-here", "--bundles").stdout


@pytest.mark.parametrize("text", ["no JSON", "[]"])
def test_options_file_must_hold_an_object(text: str, tmp_path: Path) -> None:
    """A file of storage options that holds something else is refused, and named."""
    (tmp_path / "options.json").write_text(text)
    told = run("ls", tmp_path, "--storage-options", tmp_path / "options.json", code=2).stderr
    assert "options.json" in told


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__)
def test_each_fault_has_its_exit_code(fault: type[errors.MegacacheError]) -> None:
    """A wrong setting exits with 2, a fault of the store with 3, all else with 4."""
    expected = 2 if fault is errors.SettingsError else 3 if issubclass(fault, errors.StoreError) else 4
    assert exit_code_of(fault.__new__(fault)) == expected


def test_missing_bucket_exits_with_three(moto_s3: Server, tmp_path: Path) -> None:
    """A bucket that is not there is the store's fault; the message says what to do."""
    (tmp_path / "options.json").write_text(json.dumps(moto_s3.storage_options))
    options = ["--storage-options", tmp_path / "options.json"]
    assert "create the bucket" in run("ls", "--no-here", "s3://no-such-bucket/v1", *options, code=3).stderr


def test_interruption_exits_with_130(url: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Control-C ends a command without a traceback."""

    def interrupt(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("megacache._cli.commands.ls.stock_of", interrupt)
    assert run("ls", "--no-here", url, code=130).stderr.strip() == "interrupted"


def test_bug_is_no_answer(url: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """What nobody foresaw exits with 70 and a traceback, not with the 1 that says no."""
    monkeypatch.setattr(sys, "argv", ["megacache", "ls", "--no-here", str(url)])
    monkeypatch.setattr("megacache._cli.commands.ls.stock_of", lambda _: 1 / 0)
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 70
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_no_command_but_four_needs_torch(url: Path, tmp_path: Path) -> None:
    """In a process that cannot import PyTorch every reading and moving command does its work."""
    here = tmp_path / "here.json"
    facts = environment().facts
    here.write_text(
        json.dumps({"format": 1, "command": "env", "facts": dict(facts), "recorded": {}, "compiled_files": {}})
    )
    lines: list[list[object]] = [
        ["--version"],
        ["ls", url],
        ["inspect", url],
        ["verify", url],
        ["explain", url, "--env", here],
        ["cp", url, tmp_path / "a"],
        ["push", tmp_path / "b", "--from", url],
        ["pull", url, "--to", tmp_path / "c"],
        ["export", url, tmp_path / "blob"],
        ["rm", url, "--all", "--yes"],
        ["completion", "bash"],
        ["env", "--variables"],
        ["env"],
        ["explain", url],
    ]
    told = subprocess.run(
        [sys.executable, "-c", WITHOUT_TORCH, json.dumps([list(map(str, line)) for line in lines])],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert told.stdout.splitlines()[-1] == f"codes {[0] * 12 + [4, 4]} None", told.stderr
    assert "this command needs PyTorch, which is not installed here; pip install torch" in told.stderr
    assert "explain --env here.json" in told.stderr


def test_bash_completes(tmp_path: Path) -> None:
    """What `completion bash` prints makes bash complete commands and options."""
    program = tmp_path / "megacache"
    program.write_text(f'#!/bin/sh\nexec {" ".join(PROGRAM)} "$@"\n')
    program.chmod(0o755)
    script = """
    eval "$(megacache completion bash)"
    COMP_WORDS=(megacache ver); COMP_CWORD=1; _megacache_completion megacache; echo "${COMPREPLY[@]}"
    COMP_WORDS=(megacache rm x --dry); COMP_CWORD=3; COMPREPLY=()
    _megacache_completion megacache; echo "${COMPREPLY[@]}"
    """
    bash = shutil.which("bash")
    assert bash is not None
    variables = {**os.environ, "PATH": f"{tmp_path}:{os.environ['PATH']}", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run([bash, "-c", script], env=variables, capture_output=True, text=True, timeout=120, check=True)
    assert done.stdout.split() == ["verify", "--dry-run"]


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_get_their_script(shell: str) -> None:
    """The other shells get a script that asks in their own form."""
    assert f"{shell}_complete" in run("completion", shell).stdout


def test_completion_asks_by_a_variable() -> None:
    """Asked by the variable that shells set, every command is named."""
    asked = {"COMP_WORDS": "megacache ", "COMP_CWORD": "1", "_MEGACACHE_COMPLETE": "bash_complete"}
    assert in_child(environment=asked).stdout.split() == [f"plain,{name}" for name in COMMANDS]


def test_terminal_gets_colour_unless_it_is_declined(url: Path) -> None:
    """On a terminal headers stand out; with `NO_COLOR` not one escape code is written."""
    _, shown = on_terminal("ls", "--no-here", url)
    assert "\x1b[1m" in shown
    code, plain = on_terminal("ls", "--no-here", url, environment={"NO_COLOR": "1"})
    assert code == 0
    assert "ENVIRONMENT" in plain
    assert "\x1b" not in plain


def test_progress_is_shown_on_a_terminal_only(url: Path) -> None:
    """A bar is drawn where somebody looks, and nowhere else."""
    assert "verifying" in on_terminal("verify", url)[1]
    assert "verifying" not in run("verify", url).output


def test_pipe_gets_no_escape_codes(url: Path) -> None:
    """What is piped into a file is text alone, on both streams."""
    done = in_child("verify", url)
    assert "\x1b" not in done.stdout + done.stderr
    assert done.stdout.startswith("DEVICE")
    assert "1 of 1 bundle sound" in done.stderr


def test_other_encodings_do_no_harm(tmp_path: Path) -> None:
    """A label that the terminal's encoding lacks is shown with a replacement."""
    upload(open_store(tmp_path.as_uri()), bundle([artifact()], labels={"team": "日本"}))
    done = in_child("ls", "--no-here", "--bundles", tmp_path, environment={"PYTHONIOENCODING": "latin-1"})
    assert "team=??" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("count", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1.0 KB"), (2_500_000, "2.5 MB"), (10**16, "10000.0 TB")]
)
def test_sizes_are_short(count: int, text: str) -> None:
    """A number of bytes is written in decimal units."""
    assert size_text(count) == text


@pytest.mark.parametrize("created", ["", "yesterday", "0001-01-01T00:00:00+23:59", "9999-12-31T23:59:59-23:59"])
def test_any_age_can_be_told(created: str) -> None:
    """A date that means nothing, or lies far off, is no fault."""
    assert age_text(created)
