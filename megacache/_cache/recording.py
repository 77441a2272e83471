"""What this process has compiled and could publish, taken at one moment."""

from collections.abc import Collection, Container, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from megacache import _compiler
from megacache._bundle import (
    REPLACED_KINDS,
    Artifact,
    ArtifactRef,
    CompiledFile,
    Digest,
    Environment,
    FileRef,
    FilesPart,
    applicable,
    file_mismatches,
    identify_artifact,
    identify_file,
    is_portable_artifact,
    parse_blob,
    variant_of,
)
from megacache._cache.compiled_files import gone
from megacache._cache.session import Session
from megacache._compiler import roots as known_roots
from megacache._runtime import Deadline, call
from megacache.errors import CompilerError, FormatError, IntegrityError, SettingsError

_FOR_ANY_CPU = frozenset({"triton"})
"""Roots of what was made for a GPU, and serves beside any CPU."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Found:
    """Artifacts and compiled files that can travel."""

    artifacts: Mapping[ArtifactRef, Artifact] = field(default_factory=dict, repr=False)
    files: Mapping[FileRef, CompiledFile] = field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        return len(self.artifacts) + len(self.files)

    @property
    def names(self) -> frozenset[str]:
        """Name what another process may publish as well: graphs by kind, key and guard, or else files by their paths.

        What graphs share besides, such as tuned kernels, is not worth waiting for.
        """
        graphs = {" ".join(variant_of(ref)) for ref in self.artifacts if ref.kind not in REPLACED_KINDS}
        return frozenset(graphs or {f"{ref.root} {ref.path}" for ref in self.files})

    def without(self, held: Collection[ArtifactRef], paths: Container[tuple[str, str]]) -> "Found":
        """Leave out what others hold: artifacts by kind, key and guard, or by content, and files by root and path."""
        refs, variants = frozenset(held), frozenset(map(variant_of, held))
        return Found(
            artifacts={
                ref: one for ref, one in self.artifacts.items() if ref not in refs and variant_of(ref) not in variants
            },
            files={ref: one for ref, one in self.files.items() if (ref.root, ref.path) not in paths},
        )

    def bundles(self) -> Iterator["Found"]:
        """Split into bundles: files of a registered root, which are guarded by facts of its own, get one of their own.

        Processes that cannot use them then fetch none of them, and lose no other files because of them.
        """
        roots = {ref.root for ref in self.files}
        apart = {root.name for root in known_roots.registered()}
        own = {ref: one for ref, one in self.files.items() if ref.root not in apart}
        if self.artifacts or own:
            yield Found(artifacts=self.artifacts, files=own)
        for name in sorted(roots & apart):
            yield Found(files={ref: one for ref, one in self.files.items() if ref.root == name})


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What this process compiled, and where."""

    found: Found
    guard: Mapping[str, str]
    """Facts that guard all compiled files; empty without any."""
    known: bool
    """True if some of the compiled files that it uses are in the store already, and not among those found."""
    missing: tuple[tuple[str, str], ...] = ()
    """Root and path of the compiled files that it uses, that are gone, and that are not known to be in the store."""
    probes: tuple[str, ...]
    """Trials of the ISA picker that went well."""
    environment: Environment
    warnings: tuple[str, ...]
    operators: _compiler.Operators = field(default_factory=dict)
    """The custom operators that the artifacts call, as they are defined here."""

    def news(self, session: Session) -> Found:
        """Give what is not known to be in the store."""
        new = session.news(self.found.artifacts)
        artifacts = {_guarded(ref, one): one for ref, one in self.found.artifacts.items() if ref in new}
        return Found(artifacts=artifacts, files=self.found.files).without((), session.files)

    def by_environment(self, new: Found) -> Iterator[tuple[Environment, Found]]:
        """Tell what is published for which environment: what serves beside any CPU lies apart from the rest."""
        wider = self.environment.for_any_cpu
        if wider is None:
            yield self.environment, new
            return
        free = _compiler.for_any_cpu(self.found.artifacts.values())
        shared = Found(
            artifacts={ref: one for ref, one in new.artifacts.items() if (ref.kind, ref.key) in free},
            files={ref: one for ref, one in new.files.items() if ref.root in _FOR_ANY_CPU},
        )
        rest = Found(
            artifacts={ref: one for ref, one in new.artifacts.items() if ref not in shared.artifacts},
            files={ref: one for ref, one in new.files.items() if ref not in shared.files},
        )
        yield from ((where, found) for where, found in ((self.environment, rest), (wider, shared)) if found)

    def files_part(self, files: Mapping[FileRef, CompiledFile], environment: Environment) -> FilesPart:
        """Say what the manifest says of some files that are published for an environment."""
        missing = tuple(one for one in self.missing if self._belongs(one[0], environment))
        if not files:
            return FilesPart(missing=missing)
        index = tuple(sorted(files, key=lambda ref: (ref.root, ref.path)))
        roots = {ref.root for ref in index}
        guard = applicable(known_roots.guard(self.guard, roots), roots, self.environment.device_type)
        probes = () if environment.is_for_any_cpu else self.probes
        return FilesPart(guard=guard, probes=probes, index=index, missing=missing)

    def _belongs(self, root: str, environment: Environment) -> bool:
        return environment.for_any_cpu is None or environment.is_for_any_cpu == (root in _FOR_ANY_CPU)

    def operators_of(self, artifacts: Iterable[Artifact]) -> _compiler.Operators:
        """Describe the custom operators that some of the artifacts call."""
        if not self.operators:
            return {}
        called = frozenset[str]().union(*(_compiler.called_operators(one.content) for one in artifacts))
        return {name: digest for name, digest in self.operators.items() if name in called}

    def defined_otherwise(self, operators: _compiler.Operators) -> Collection[tuple[str, str]]:
        """Give kind and key of the artifacts that call an operator which is defined otherwise where others compiled."""
        changed = {name for name, digest in self.operators.items() if operators.get(name, digest) != digest}
        if not changed:
            return frozenset()
        called = {ref: _compiler.called_operators(one.content) for ref, one in self.found.artifacts.items()}
        return {(ref.kind, ref.key) for ref, names in called.items() if names & changed}

    def covered_by(self, part: FilesPart) -> Container[tuple[str, str]]:
        """Give roots and paths of the files of another bundle that serve here as well as this process's own."""
        roots = {ref.root for ref in part.index}
        here = known_roots.guard(self.guard, roots)
        if file_mismatches(here, part.guard, roots=roots, device_type=self.environment.device_type):
            return ()
        return {(ref.root, ref.path) for ref in part.index}


def _guarded(ref: ArtifactRef, artifact: Artifact) -> ArtifactRef:
    guard = _compiler.guard(artifact)
    return replace(ref, guard=str(Digest.of(guard.encode(errors="surrogatepass"))) if guard else guard)


def recorded_in(blob: bytes) -> Recorded:
    """Take what a blob of PyTorch's holds; it does not say where it was compiled, and counts as compiled here.

    Raises `SettingsError` for a blob that holds nothing of use.
    """
    try:
        artifacts = list(parse_blob(blob))
    except (FormatError, IntegrityError) as error:
        raise SettingsError(
            f"this is not a blob of PyTorch's: {error}", hint="give what torch.compiler.save_cache_artifacts() returned"
        ) from error
    portable = {identify_artifact(one): one for one in artifacts if is_portable_artifact(one)}
    if not portable:
        raise SettingsError("this blob holds no artifact that a reader would accept", hint="compile and save again")
    return Recorded(
        found=Found(artifacts=portable),
        guard={},
        known=False,
        probes=(),
        environment=_compiler.current_environment(),
        warnings=tuple(_left_out(artifacts, besides=())),
    )


def take(session: Session, deadline: Deadline, *, files: bool) -> Recorded:
    """Take what PyTorch has recorded so far; what it compiles later is not in it.

    With `files`, the compiled files that it uses are read, too, but for those that are known to be in the store.
    """
    # A disk that hangs is noticed here: what comes after looks into the folder as well.
    folder = call(_compiler.cache_folder, deadline=deadline, doing=_compiler.FOLDER)
    recorded = _compiler.record(deadline)
    apart = files and call(_kept_apart, deadline=deadline, doing="reading compiled files")
    warnings = list(_warnings(recorded, apart=apart, moved=session.folder not in {None, folder}))
    compiled: Mapping[FileRef, CompiledFile] = {}
    guard: Mapping[str, str] = {}
    known, missing = False, tuple[tuple[str, str], ...]()
    if files:
        try:
            compiled, missing, known = _compiled(recorded, session, deadline)
            # It runs the compiler, to ask for its version.
            guard = _compiler.toolchain(deadline) if compiled else {}
        except CompilerError as error:  # artifacts are useful on their own
            compiled = {}
            warnings.append(f"compiled files were left out: {error}")
    if missing:
        warnings.append(f"{gone(missing)}: whoever loads its graphs has to compile that again")
    artifacts = {identify_artifact(one): one for one in _latest(recorded) if is_portable_artifact(one)}
    operators: _compiler.Operators = {}
    try:
        called = (_compiler.called_operators(one.content) for one in artifacts.values())
        operators = _compiler.definitions(frozenset[str]().union(*called))
    except CompilerError as error:
        warnings.append(f"nothing is published of the definitions of custom operators: {error}")
    return Recorded(
        found=Found(artifacts=artifacts, files=compiled),
        guard=guard,
        known=known,
        missing=missing,
        probes=_compiler.passed_probes() if compiled else (),
        environment=_compiler.current_environment(deadline),
        warnings=tuple(warnings),
        operators=operators,
    )


def _kept_apart() -> bool:
    """Tell whether a program keeps what PyTorch compiled in a root of its own, where its recorder need not see it."""
    return any(not root.foreign and any(True for _ in root.used()) for root in known_roots.registered())


def _warnings(recorded: Sequence[Artifact], *, apart: bool, moved: bool) -> Iterator[str]:
    yield from _compiler.recording_warnings(recorded, apart=apart)
    yield from _left_out(recorded, besides=("precompile",))
    if moved and not apart:
        yield (
            "PyTorch's cache folder has changed since the warm start, so that what was loaded was not found: set "
            "TORCHINDUCTOR_CACHE_DIR before the warm start"
        )


def _left_out(artifacts: Sequence[Artifact], *, besides: Collection[str]) -> Iterator[str]:
    foreign = sorted({one.kind for one in artifacts if not is_portable_artifact(one)} - set(besides))
    if foreign:
        yield f"artifacts that no reader would accept were left out: {', '.join(foreign)}"


def _latest(recorded: Sequence[Artifact]) -> Iterator[Artifact]:
    """Leave out what a later artifact of the same key has replaced."""
    last = {(one.kind, one.key): one for one in recorded if one.kind in REPLACED_KINDS}
    yield from (one for one in recorded if one.kind not in REPLACED_KINDS)
    yield from last.values()


def _compiled(
    recorded: Sequence[Artifact], session: Session, deadline: Deadline
) -> tuple[Mapping[FileRef, CompiledFile], tuple[tuple[str, str], ...], bool]:
    """Read the compiled files that are not known to be in the store; name those that are gone.

    Tell, too, whether there are others that are known to be in the store.
    """
    # Here and not in a thread, which would have another current device.
    device = _compiler.current_device()

    def look() -> tuple[list[tuple[_compiler.Located, CompiledFile | None]], bool]:
        used = _compiler.used_files(recorded, _compiler.file_roots(device))
        located = [one for one in used if (one.root, one.path) not in session.files]
        return [(one, one.read()) for one in located], len(located) < len(used)

    read, known = call(look, deadline=deadline, doing="reading compiled files")
    files = {identify_file(file): file for _, file in read if file is not None}
    missing = tuple((one.root, one.path) for one, file in read if file is None)
    return files, missing, known
