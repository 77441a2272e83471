"""What this machine is, asked of PyTorch in a process of its own: the command line itself never imports it."""

import importlib.util
import json
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from megacache._environment import Environment
from megacache._layout import EnvironmentPrefix, environment_prefix
from megacache.errors import CompilerError, SettingsError

_SECONDS = 120.0
_TAIL = 300


@dataclass(frozen=True, slots=True, kw_only=True)
class Here:
    """The environment of a machine, and what guards compiled files there."""

    environment: Environment
    guard: Mapping[str, str] = field(default_factory=dict)

    @property
    def prefix(self) -> EnvironmentPrefix:
        """Where its bundles lie in a store."""
        return environment_prefix(self.environment.device, self.environment.fingerprint)

    def of_epoch(self, epoch: str) -> "Here":
        """Give the same in a generation of a cache."""
        return replace(self, environment=self.environment.of_epoch(epoch))

    def to_json(self) -> dict[str, Any]:
        """Put it into the types of JSON."""
        return {
            "device": self.environment.device,
            "fingerprint": self.environment.fingerprint,
            "facts": dict(self.environment.facts),
            "recorded": dict(self.environment.recorded),
            "compiled_files": dict(self.guard),
        }


class Asking:
    """A question that another process is working on."""

    def __init__(self) -> None:
        self._child: subprocess.Popen[str] | None = None
        if importlib.util.find_spec("torch") is not None:
            self._child = subprocess.Popen(
                [sys.executable, "-m", "megacache", "env", "--json"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )

    def answer(self) -> Here:
        """Wait for the answer; raise `CompilerError` if PyTorch is not installed or gives none."""
        if self._child is None:
            raise CompilerError(
                "PyTorch is not installed here, which alone knows what fits this machine",
                hint="run `megacache env --json > here.json` on the machine in question, and give --here here.json",
            )
        try:
            told, failed = self._child.communicate(timeout=_SECONDS)
        except subprocess.TimeoutExpired as error:
            self.give_up()
            raise CompilerError(f"PyTorch did not tell its environment within {_SECONDS:g} s") from error
        if self._child.returncode:
            raise CompilerError(f"PyTorch did not tell its environment: {failed.strip()[-_TAIL:]}")
        return parsed(json.loads(told))

    def give_up(self) -> None:
        """End the other process."""
        if self._child is not None and self._child.poll() is None:
            self._child.kill()
            self._child.communicate()


def here() -> Here:
    """Ask, and wait for the answer."""
    return Asking().answer()


def here_from(path: str | None) -> Here:
    """Read the answer of another machine, as `megacache env --json` printed it there; without a file, ask this one."""
    if path is None:
        return here()
    try:
        return parsed(json.loads(Path(path).read_text()))
    except (OSError, ValueError) as error:
        raise SettingsError(f"{path}: {error}", hint="give what `megacache env --json` has printed") from error


def parsed(document: Any) -> Here:
    """Read the document; raise `SettingsError` if it is another one."""
    parts = [document.get(name) if isinstance(document, dict) else None for name in ("facts", "recorded")]
    if not all(isinstance(part, dict) and all(isinstance(value, str) for value in part.values()) for part in parts):
        raise SettingsError("this is no environment", hint="give what `megacache env --json` has printed")
    facts, recorded = parts
    guard = document.get("compiled_files") or {}
    return Here(environment=Environment(facts=facts, recorded=recorded), guard=guard)  # type: ignore[arg-type]
