"""Write what this process compiled, and nobody has published, to a store."""

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from megacache import _artifacts_part, _compiler, _files_part
from megacache._artifacts_part import REPLACED_KINDS, identify, is_portable
from megacache._blob import Artifact
from megacache._bundle import bundle_id, describe
from megacache._catalog import Catalog
from megacache._deadline import Deadline
from megacache._environment import Environment
from megacache._files import CompiledFile
from megacache._guard import mismatches
from megacache._manifest import ArtifactRef, ChunkRef, FileRef, FilesPart
from megacache._results import Progress, ProgressCallback, PublishResult, PublishStatus
from megacache._session import Session
from megacache._stopwatch import Stopwatch
from megacache._store import Store
from megacache.errors import AccessError, CompilerError


@dataclass(frozen=True, slots=True, kw_only=True)
class _Found:
    """What can travel."""

    artifacts: Mapping[ArtifactRef, Artifact] = field(repr=False)
    files: Mapping[FileRef, CompiledFile] = field(repr=False)

    def __bool__(self) -> bool:
        return bool(self.artifacts or self.files)

    def without(self, keys: Container[tuple[str, str]], paths: Container[tuple[str, str]]) -> "_Found":
        """Leave out what others hold, by kind and key, by root and path."""
        return _Found(
            artifacts={ref: one for ref, one in self.artifacts.items() if (ref.kind, ref.key) not in keys},
            files={ref: one for ref, one in self.files.items() if (ref.root, ref.path) not in paths},
        )

    def __len__(self) -> int:
        return len(self.artifacts) + len(self.files)


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What PyTorch has recorded in this process, taken at one moment."""

    found: _Found
    guard: Mapping[str, str]
    """Facts that guard the compiled files."""
    probes: tuple[str, ...]
    """Trials of the ISA picker that went well."""
    environment: Environment
    warnings: tuple[str, ...]


def take(session: Session, deadline: Deadline, *, files: bool) -> Recorded:
    """Take what PyTorch has recorded so far; what it compiles later is not in it.

    With `files`, the compiled files that it uses are read, too, but for those that are known to be in the store.
    """
    found = _compiler.record(deadline)
    kinds = {artifact.kind for artifact in found}
    warnings = _compiler.recording_warnings(kinds)
    foreign = sorted({a.kind for a in found if not is_portable(a)} - {"precompile"})
    if foreign:
        warnings.append(f"artifacts that no reader would accept were left out: {', '.join(foreign)}")
    folder = _compiler.cache_folder()
    if session.folder not in {None, folder}:
        warnings.append("PyTorch's cache folder has changed since the warm start: what was loaded did not hit")
    compiled, part = _NOTHING
    if files:
        try:
            compiled, part = _compiled(session)
        except CompilerError as error:  # artifacts are of use on their own
            warnings.append(f"compiled files were left out: {error}")
    return Recorded(
        found=_Found(artifacts={identify(a): a for a in _latest(found) if is_portable(a)}, files=compiled),
        guard=part.guard,
        probes=part.probes,
        environment=_compiler.current_environment(),
        warnings=tuple(warnings),
    )


def _compiled(session: Session) -> tuple[Mapping[FileRef, CompiledFile], FilesPart]:
    located = [one for one in _compiler.used_files() if (one.root, one.path) not in session.files]
    files = [file for one in located if (file := one.read()) is not None]
    if not files:
        return _NOTHING
    part = FilesPart(guard=_compiler.toolchain(), probes=_compiler.passed_probes())
    return {_files_part.identify(file): file for file in files}, part


_NOTHING: tuple[Mapping[FileRef, CompiledFile], FilesPart] = {}, FilesPart()


def _latest(found: Sequence[Artifact]) -> Iterator[Artifact]:
    """Leave out what a later artifact of the same key has replaced."""
    last = {(a.kind, a.key): a for a in found if a.kind in REPLACED_KINDS}
    yield from (a for a in found if a.kind not in REPLACED_KINDS)
    yield from last.values()


class Publication:
    """One publication."""

    def __init__(
        self,
        recorded: Recorded,
        session: Session,
        clock: Stopwatch,
        progress: ProgressCallback,
        *,
        url: str,
        labels: Mapping[str, str],
    ) -> None:
        self._recorded = recorded
        self._session = session
        self._clock = clock
        self._progress = progress
        self._url = url
        self._labels = labels

    def run(self, open_store: Callable[[], Store]) -> PublishResult:
        """Subtract what this process and others have published, upload the rest, then announce it.

        The store is opened only if there is something new.
        """
        found = self._recorded.found
        if not found:
            return self._result(PublishStatus.EMPTY, reason="PyTorch has recorded no artifact in this process")
        news = self._session.news(found.artifacts)
        new = _Found(artifacts={ref: found.artifacts[ref] for ref in news}, files=found.files).without(
            (), self._session.files
        )
        if not new:
            return self._result(PublishStatus.UNCHANGED)
        with self._clock.stage("open"):
            catalog = Catalog(open_store(), self._recorded.environment)
        parents = set(self._session.bundles)
        with self._clock.stage("list"):
            left = self._uncovered(new, catalog, parents)
        if not left:
            self._session.remember(new.artifacts, parents, new.files)
            return self._result(
                PublishStatus.COVERED, reason="other processes have published an artifact under every key"
            )
        try:
            result = self._write(catalog, left, parents)
        except AccessError as error:
            return self._result(PublishStatus.READ_ONLY, reason=str(error), error=error)
        self._session.remember(new.artifacts, {*parents, *filter(None, [result.bundle])}, new.files)
        return result

    def _uncovered(self, new: _Found, catalog: Catalog, parents: set[str]) -> _Found:
        """Leave out what bundles new to this process hold under the same kind and key; these become parents."""
        listing = catalog.list()
        self._session.unusable.update(listing.withdrawn)
        known = self._session.bundles | self._session.unusable
        left = new
        for done in catalog.read({bundle: size for bundle, size in listing.visible.items() if bundle not in known}):
            manifest = done.value
            if manifest is None:
                self._session.give_up(done.item, done.fault)
                continue
            if self._recorded.environment.mismatches(manifest.environment):
                self._session.unusable.add(done.item)
                continue
            keys = {(ref.kind, ref.key) for ref in manifest.artifacts}
            useless = mismatches(self._recorded.guard, manifest.files.guard)
            paths = {(ref.root, ref.path) for ref in manifest.files.index if not useless}
            remaining = left.without(keys, paths)
            if len(remaining) < len(left):
                parents.add(manifest.bundle)
            left = remaining
        return left

    def _write(self, catalog: Catalog, left: _Found, parents: set[str]) -> PublishResult:
        # A name that is taken by a bundle nobody can use is avoided by naming that bundle as a parent.
        files = self._files_part(left)
        while (bundle := bundle_id(left.artifacts, parents, files)) in self._session.unusable:
            parents.add(bundle)
        refs = sorted(left.artifacts, key=lambda ref: (ref.kind, ref.key, ref.digest))
        with self._clock.stage("upload"):
            chunks = self._upload(
                catalog, [left.artifacts[ref] for ref in refs], [left.files[ref] for ref in files.index]
            )
            manifest = describe(
                environment=self._recorded.environment,
                artifacts=refs,
                chunks=chunks,
                parents=parents,
                labels=self._labels,
                files=files,
            )
            created = catalog.announce(manifest)
        return self._result(
            PublishStatus.PUBLISHED if created else PublishStatus.DUPLICATE,
            reason="" if created else "another process published the same bundle a moment earlier",
            bundle=bundle,
            artifacts=Counter(ref.kind for ref in refs),
            files=len(files.index),
            bytes_files=sum(ref.size for ref in files.index),
            bytes_stored=sum(chunk.stored_size for chunk in chunks),
            bytes_raw=sum(chunk.raw_size for chunk in chunks),
        )

    def _files_part(self, left: _Found) -> FilesPart:
        if not left.files:
            return FilesPart()
        index = tuple(sorted(left.files, key=lambda ref: (ref.root, ref.path)))
        return FilesPart(guard=self._recorded.guard, probes=self._recorded.probes, index=index)

    def _upload(
        self, catalog: Catalog, artifacts: Sequence[Artifact], files: Sequence[CompiledFile]
    ) -> tuple[ChunkRef, ...]:
        wanted = (*_artifacts_part.payloads(artifacts), *_files_part.payloads(files))
        total, done = sum(payload.weight for payload in wanted), 0

        def uploaded(ref: ChunkRef) -> None:
            nonlocal done
            done += ref.raw_size
            self._progress(Progress(stage="upload", done=min(done, total), total=total))

        return catalog.write(wanted, uploaded)

    def _result(self, status: PublishStatus, **known: Any) -> PublishResult:
        return PublishResult(url=self._url, status=status, warnings=self._recorded.warnings, **known)
