"""What this machine is, asked of PyTorch in a process of its own: the command line itself never imports it."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TextIO

from megacache._bundle import Environment, EnvironmentPrefix, environment_prefix
from megacache._cli.output import JSON_FORMAT
from megacache.errors import CompilerError, SettingsError

_PROGRAM = (
    "import json, runpy, sys; sys.path[:] = json.loads(sys.argv.pop(1));"
    " runpy.run_module(sys.argv.pop(1), run_name='__main__', alter_sys=True)"
)

_SECONDS = 120.0
_TAIL = 300
_WANTED = "give what `megacache env --json` has printed"


def child_command(module: str, *arguments: str) -> list[str]:
    """Give the command line that runs a module.

    `python -m` would look in the working folder first, which may hold a `torch` of its own, such as a checkout.
    """
    return [sys.executable, "-P", "-c", _PROGRAM, json.dumps(sys.path), module, *arguments]


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """The environment of a machine, and what guards compiled files there."""

    environment: Environment
    guard: Mapping[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> EnvironmentPrefix:
        """Where its bundles lie in a store."""
        return self.prefixes[0]

    @property
    def prefixes(self) -> tuple[EnvironmentPrefix, ...]:
        """Where all bundles lie that it would load; with a GPU, those for any CPU are the last."""
        return tuple(environment_prefix(one.device, one.fingerprint) for one in self.environment.readable)

    def to_json(self) -> dict[str, Any]:
        """Put it into the types of JSON."""
        return {
            "device": self.environment.device,
            "fingerprint": self.environment.fingerprint,
            "facts": dict(self.environment.facts),
            "recorded": dict(self.environment.recorded),
            "unread": dict(self.environment.unread),
            "compiled_files": dict(self.guard),
        }


class Asking:
    """A question that another process is working on."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        if has_torch():
            self._child = subprocess.Popen(
                child_command("megacache", "env", "--json"),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def answer(self) -> Here:
        """Wait for the answer; raise `CompilerError` if PyTorch is not installed or gives none."""
        if self._child is None:
            raise CompilerError(
                "PyTorch is not installed here, and only PyTorch knows what fits this machine",
                hint="run `megacache env --json > here.json` there, and `megacache explain --env here.json` here",
            )
        try:
            output, errors = self._child.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired as error:
            self.give_up()
            raise CompilerError(f"PyTorch did not report its environment within {_SECONDS:g} s") from error
        if self._child.returncode:
            said = errors.strip().rpartition("\n")[2].removeprefix("error: ")
            raise CompilerError(f"PyTorch did not report its environment: {said[-_TAIL:]}")
        try:
            return parsed(output)
        except SettingsError as error:
            raise CompilerError("PyTorch printed something besides its environment") from error

    def give_up(self) -> None:
        """End the other process."""
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            # Reaps it, and closes its pipes.
            self._child.communicate()


def has_torch() -> bool:
    """Tell whether PyTorch is installed, without importing it."""
    return importlib.util.find_spec("torch") is not None


def need_torch() -> None:
    """Raise `CompilerError` if PyTorch is not installed."""
    if not has_torch():
        raise CompilerError("this command needs PyTorch, which is not installed here", hint="pip install torch")


def here() -> Here:
    """Ask, and wait for the answer."""
    return Asking().answer()


def here_from(file: TextIO | None) -> Here:
    """Read the answer of another machine, as `megacache env --json` printed it there; without a file, ask this one."""
    return here() if file is None else parsed(file.read())


def parsed(text: str) -> Here:
    """Read what `megacache env --json` prints; raise `SettingsError` if it is something else."""
    try:
        document = json.loads(text)
    except ValueError as error:
        raise SettingsError(f"this is not an environment: {error}", hint=_WANTED) from error
    if not isinstance(document, dict) or document.get("command") != "env":
        raise SettingsError("this is not an environment", hint=_WANTED)
    if document.get("format") != JSON_FORMAT:
        raise SettingsError(f"this environment is of format {document.get('format')!r:.20}", hint="upgrade megacache")
    environment = Environment(facts=_texts(document, "facts"), recorded=_texts(document, "recorded"))
    return Here(environment=environment, guard=_texts(document, "compiled_files"))


def _texts(document: Mapping[str, Any], name: str) -> Mapping[str, str]:
    found = document.get(name)
    if not isinstance(found, dict) or not all(isinstance(value, str) for value in found.values()):
        raise SettingsError(f"this is not an environment: {name} must map names to strings", hint=_WANTED)
    return found
