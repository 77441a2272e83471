"""Every command that a document shows is one that its program takes."""

import ast
import importlib.util
import re
import shlex
import tomllib
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import click
import pytest

from examples.benchmark.options import parser as benchmark_parser
from examples.fleet.options import parser as fleet_parser
from megacache._cli.app import COMMANDS, app
from megacache._settings import documented_variables
from tests.fuzz.options import parser as fuzz_parser
from tests.kit.documents import DOCUMENTS
from tests.kit.processes import REPOSITORY

CONTEXT = click.Context(app, info_name="megacache", **app.context_settings)
ASSIGNMENT = re.compile(r"(?:export )?(?P<name>[A-Z_]+)=(?:\$\([^)]*\)|\S+)\s*")
FENCED = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PROGRAMS = ("megacache", "nox", "python", "pytest", "pip")
OF_OTHERS = {"--", "-m", "-march=native", "--shutdown-timeout", "--tensor-parallel-size"}
"""Options that documents name alone, and that belong to a shell, to pytest, to a compiler and to vLLM."""
METADATA = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())
NOXFILE = ast.parse((REPOSITORY / "noxfile.py").read_text())


def sessions() -> set[str]:
    """Name the sessions of nox."""
    functions = [one for one in NOXFILE.body if isinstance(one, ast.FunctionDef)]
    return {one.name for one in functions if "nox.session" in map(ast.unparse, one.decorator_list)}


def lines(document: Path) -> Iterator[str]:
    """Give the lines that a document shows as typed."""
    for language, block in FENCED.findall(document.read_text()):
        yield from block.splitlines() if language == "console" else ()


def words(document: Path) -> Iterator[str]:
    """Give what a document names in the middle of its text: commands, whole or in part, options and variables."""
    for found in re.findall(r"`([^`]+)`", FENCED.sub("", document.read_text())):
        text = " ".join(found.split())
        if text.startswith("-") or ASSIGNMENT.match(text) or (text.partition(" ")[0] in PROGRAMS and " " in text):
            yield text


LINES = [pytest.param(one, line, id=f"{one.name}: {line}") for one in DOCUMENTS for line in lines(one)]
WORDS = [pytest.param(one, text, id=f"{one.name}: {text}") for one in DOCUMENTS for text in words(one)]


def variables() -> set[str]:
    """Name the variables that documents may set."""
    return {one.name for one in documented_variables()} | {
        *("MEGACACHE_TORCH", "PIP_EXTRA_INDEX_URL", "TORCHINDUCTOR_CACHE_DIR"),
        "TORCH_DYNAMO_GC_GEN2_THRESHOLD_DURING_COMPILE",
    }


def options_of(command: click.Command) -> set[str]:
    """Name the options of a command."""
    return {name for one in command.get_params(CONTEXT) for name in (*one.opts, *one.secondary_opts)} | {"--version"}


def loaded(name: str) -> click.Command:
    """Load a command of megacache."""
    command = app.get_command(CONTEXT, name)
    assert command is not None, name
    return command


def check_megacache(arguments: Sequence[str], document: Path, *, whole: bool) -> None:
    """Accept a command with all of its arguments, or else a part of one."""
    del document
    name, *rest = arguments
    if whole:
        assert loaded(name).make_context(name, rest, parent=CONTEXT).args == []
    elif name not in {"COMMAND", "--help"}:
        own = rest[: rest.index("--")] if "--" in rest else rest
        assert {word for word in own if word.startswith("-")} <= options_of(loaded(name))


def check_nox(arguments: Sequence[str], document: Path, *, whole: bool) -> None:
    """Accept sessions that there are, and words that their programs take."""
    del document, whole
    own, rest = [list(arguments), []]
    if "--" in own:
        own, rest = own[: own.index("--")], own[own.index("--") + 1 :]
    names = [one for one in own if not one.startswith("-")]
    assert set(names) <= sessions()
    parsers = {"benchmark": benchmark_parser, "fleet": fleet_parser, "fuzz": fuzz_parser}
    for name in names if rest else ():
        if name in parsers:
            parsers[name]().parse_args(rest)
        else:
            check_pytest(rest, REPOSITORY, whole=True)


def check_pytest(arguments: Sequence[str], document: Path, *, whole: bool) -> None:
    """Accept folders of tests that there are."""
    del document, whole
    assert all((REPOSITORY / one).exists() for one in arguments if one.startswith("tests"))


def check_python(arguments: Sequence[str], document: Path, *, whole: bool) -> None:
    """Accept code, and a module or an example that there is; of a server or a program of the reader's nobody knows."""
    del whole
    first, *rest = arguments
    if first == "-m":
        assert importlib.util.find_spec(rest[0])
        if rest[0] == "examples.benchmark":
            benchmark_parser().parse_args(rest[1:])
    elif first != "-c":
        assert first == "serve.py" or (document.parent / first).exists()


def check_pip(arguments: Sequence[str], document: Path, *, whole: bool) -> None:
    """Accept extras that megacache has."""
    del document, whole
    extras = re.findall(r"megacache\[(\w+)\]", " ".join(arguments))
    assert set(extras) <= METADATA["project"]["optional-dependencies"].keys()


CHECKS: dict[str, Callable[..., None]] = {
    "megacache": check_megacache,
    "nox": check_nox,
    "pytest": check_pytest,
    "python": check_python,
    "pip": check_pip,
}


def check(text: str, document: Path, *, whole: bool) -> None:
    """Accept the variables that a command line sets, and its program with its arguments."""
    while match := ASSIGNMENT.match(text):
        assert match["name"] in variables()
        text = text[match.end() :].lstrip()
    typed = shlex.split(text.partition(" > ")[0], comments=True)
    if typed:
        CHECKS[typed[0]](typed[1:], document, whole=whole)


@pytest.mark.parametrize(("document", "line"), LINES)
def test_every_line_is_accepted(document: Path, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each line that is shown as typed has the arguments and options that its program takes."""
    monkeypatch.chdir(tmp_path)
    for name in ("flux.bin", "staging.pem.pub", "here.json"):
        (tmp_path / name).touch()
    check(line, document, whole=True)


@pytest.mark.parametrize(("document", "text"), WORDS)
def test_every_command_named_exists(document: Path, text: str) -> None:
    """Each command, option and variable that a text names is there."""
    if text.startswith("-"):
        known = set.union(OF_OTHERS, *map(options_of, map(loaded, COMMANDS)))
        assert text.partition(" ")[0] in known | set(benchmark_parser()._option_string_actions)
    else:
        check(text, document, whole=False)


def test_every_kind_of_document_is_read() -> None:
    """Lines and names are found in the README, in the guides and in what contributors are told."""
    for found in (LINES, WORDS):
        assert {"README.md", "signing.md", "CONTRIBUTING.md"} <= {one.values[0].name for one in found}  # type: ignore[union-attr]


@pytest.mark.parametrize("name", ["README", ".github/CONTRIBUTING"])
def test_sessions_are_told(name: str) -> None:
    """The README names the session that runs the tests, and the document for contributors names all."""
    named = set(re.findall(r"nox -s (\w+)", (REPOSITORY / f"{name}.md").read_text()))
    assert named == sessions() if name.endswith("CONTRIBUTING") else "tests" in named
