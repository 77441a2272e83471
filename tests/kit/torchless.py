"""Stand in for the door to torch, so that a verb can be driven hundreds of times within a process."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from megacache import Cache, PublishResult, WarmResult, _compiler
from megacache._bundle import Artifact, CompiledFile, identify_artifact, identify_file
from megacache._cache.recording import Found, Recorded
from megacache._runtime import forget
from tests.kit.builders import environment


@dataclass(slots=True, kw_only=True)
class Compiler:
    """What torch would have recorded, and what it was given to load."""

    folder: Path
    """Where compiled files lie."""
    recorded: Recorded
    loaded: list[bytes] = field(default_factory=list)

    def compile(self, *artifacts: Artifact, files: Sequence[CompiledFile] = ()) -> None:
        """Say what this process has compiled."""
        self.recorded = recorded(artifacts, files)

    def warm(self, url: str, options: Mapping[str, Any], seconds: float) -> WarmResult:
        """Warm as a process would that has never heard of this cache."""
        forget()
        self.loaded.clear()
        return Cache(url, storage_options=options).warm(timeout=seconds)

    def publish(self, url: str, options: Mapping[str, Any], seconds: float) -> PublishResult:
        """Publish as a process would that has never heard of this cache."""
        forget()
        return Cache(url, storage_options=options).publish(timeout=seconds)

    def load(self, blob: bytes, *_: object) -> tuple[_compiler.Loaded, dict[Any, Any]]:
        """Take a blob."""
        self.loaded.append(blob)
        return _compiler.Loaded(), {}


def recorded(artifacts: Sequence[Artifact], files: Sequence[CompiledFile] = ()) -> Recorded:
    """Make what a process has compiled."""
    found = Found(
        artifacts={identify_artifact(one): one for one in artifacts}, files={identify_file(one): one for one in files}
    )
    return Recorded(found=found, guard={}, known=False, probes=(), environment=environment(), warnings=())


def install(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Compiler:
    """Put the stand-in behind the door for the length of a test."""
    compiler = Compiler(folder=folder, recorded=recorded(()))
    answers: dict[str, Any] = {
        "switched_off": "",
        "watch": None,
        "defer_while_compiling": None,
        "on_compilations": None,
        "compiling": False,
        "writable_cache_folder": str(folder),
        "current_environment": environment(),
        "loading_warnings": (),
        "look_into_inner_graphs": None,
        "job": None,
        "import_inductor": None,
        "current_device": None,
        "toolchain": {},
        "file_roots": {"inductor": (folder,)},
        "adopt": None,
    }
    for name, answer in answers.items():
        monkeypatch.setattr(_compiler, name, lambda *_, answer=answer: answer)
    monkeypatch.setattr(_compiler, "load_if_met", compiler.load)
    monkeypatch.setattr("megacache._cache.cache.take", lambda *_, **__: compiler.recorded)
    return compiler
