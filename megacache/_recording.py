"""What this process has compiled and could publish, taken at one moment."""

from collections.abc import Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from megacache import _compiler, _files_part
from megacache._artifacts_part import REPLACED_KINDS, identify, is_portable
from megacache._blob import Artifact
from megacache._deadline import Deadline
from megacache._environment import Environment
from megacache._files import CompiledFile
from megacache._manifest import ArtifactRef, FileRef, FilesPart
from megacache._session import Session
from megacache.errors import CompilerError


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Artifacts and compiled files that can travel."""

    artifacts: Mapping[ArtifactRef, Artifact] = field(default_factory=dict, repr=False)
    files: Mapping[FileRef, CompiledFile] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.artifacts) + len(self.files)

    def without(self, keys: Container[tuple[str, str]], paths: Container[tuple[str, str]]) -> "Found":
        """Leave out what others hold: artifacts by kind and key, files by root and path."""
        return Found(
            artifacts={ref: one for ref, one in self.artifacts.items() if (ref.kind, ref.key) not in keys},
            files={ref: one for ref, one in self.files.items() if (ref.root, ref.path) not in paths},
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What this process compiled, and where."""

    found: Found
    guard: Mapping[str, str]
    """Facts that guard the compiled files."""
    probes: tuple[str, ...]
    """Trials of the ISA picker that went well."""
    environment: Environment
    warnings: tuple[str, ...]

    def news(self, session: Session) -> Found:
        """Give what is not known to be in the store."""
        new = session.news(self.found.artifacts)
        artifacts = {ref: artifact for ref, artifact in self.found.artifacts.items() if ref in new}
        return Found(artifacts=artifacts, files=self.found.files).without((), session.files)

    def files_part(self, files: Mapping[FileRef, CompiledFile]) -> FilesPart:
        """Say what the manifest says of some files."""
        if not files:
            return FilesPart()
        index = tuple(sorted(files, key=lambda ref: (ref.root, ref.path)))
        return FilesPart(guard=self.guard, probes=self.probes, index=index)


def take(session: Session, deadline: Deadline, *, files: bool) -> Recorded:
    """Take what PyTorch has recorded so far; what it compiles later is not in it.

    With `files`, the compiled files that it uses are read, too, but for those that are known to be in the store.
    """
    recorded = _compiler.record(deadline)
    warnings = list(_warnings(recorded, session))
    compiled: Mapping[FileRef, CompiledFile] = {}
    guard: Mapping[str, str] = {}
    if files:
        try:
            compiled = _compiled(session)
            guard = _compiler.toolchain() if compiled else {}
        except CompilerError as error:  # artifacts are of use on their own
            compiled = {}
            warnings.append(f"compiled files were left out: {error}")
    artifacts = {identify(one): one for one in _latest(recorded) if is_portable(one)}
    return Recorded(
        found=Found(artifacts=artifacts, files=compiled),
        guard=guard,
        probes=_compiler.passed_probes() if compiled else (),
        environment=_compiler.current_environment(),
        warnings=tuple(warnings),
    )


def _warnings(recorded: Sequence[Artifact], session: Session) -> Iterator[str]:
    yield from _compiler.recording_warnings({artifact.kind for artifact in recorded})
    foreign = sorted({one.kind for one in recorded if not is_portable(one)} - {"precompile"})
    if foreign:
        yield f"artifacts that no reader would accept were left out: {', '.join(foreign)}"
    if session.folder not in {None, _compiler.cache_folder()}:
        yield "PyTorch's cache folder has changed since the warm start: what was loaded did not hit"


def _latest(recorded: Sequence[Artifact]) -> Iterator[Artifact]:
    """Leave out what a later artifact of the same key has replaced."""
    last = {(one.kind, one.key): one for one in recorded if one.kind in REPLACED_KINDS}
    yield from (one for one in recorded if one.kind not in REPLACED_KINDS)
    yield from last.values()


def _compiled(session: Session) -> Mapping[FileRef, CompiledFile]:
    located = [one for one in _compiler.used_files() if (one.root, one.path) not in session.files]
    files = [file for one in located if (file := one.read()) is not None]
    return {_files_part.identify(file): file for file in files}
