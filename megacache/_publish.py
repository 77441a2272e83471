"""Write what this process compiled, and nobody has published, to a store."""

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from megacache import _compiler
from megacache._blob import Artifact
from megacache._bundle import REPLACED_KINDS, bundle_id, describe, identify, is_portable, payloads
from megacache._catalog import Catalog
from megacache._chunk import Payload
from megacache._deadline import Deadline
from megacache._environment import Environment
from megacache._explain_part import PART as EXPLAIN_PART
from megacache._explain_part import explain_payloads
from megacache._manifest import ArtifactRef, ChunkRef
from megacache._results import Progress, ProgressCallback, PublishResult, PublishStatus
from megacache._session import Session
from megacache._stopwatch import Stopwatch
from megacache._store import Store
from megacache.errors import AccessError

_log = logging.getLogger("megacache")

_Found = Mapping[ArtifactRef, Artifact]


@dataclass(frozen=True, slots=True, kw_only=True)
class Recorded:
    """What PyTorch has recorded in this process, taken at one moment."""

    artifacts: _Found = field(repr=False)
    """Those that can travel."""
    environment: Environment
    warnings: tuple[str, ...]


def take(session: Session, deadline: Deadline) -> Recorded:
    """Take what PyTorch has recorded so far; what it compiles later is not in it."""
    found = _compiler.record(deadline)
    kinds = {artifact.kind for artifact in found}
    warnings = _compiler.recording_warnings(kinds)
    foreign = sorted({a.kind for a in found if not is_portable(a)} - {"precompile"})
    if foreign:
        warnings.append(f"artifacts that no reader would accept were left out: {', '.join(foreign)}")
    folder = _compiler.cache_folder()
    if session.folder not in {None, folder}:
        warnings.append("PyTorch's cache folder has changed since the warm start: what was loaded did not hit")
    return Recorded(
        artifacts={identify(a): a for a in _latest(found) if is_portable(a)},
        environment=_compiler.current_environment(),
        warnings=tuple(warnings),
    )


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
        self._warnings = list(recorded.warnings)

    def run(self, open_store: Callable[[], Store]) -> PublishResult:
        """Subtract what this process and others have published, upload the rest, then announce it.

        The store is opened only if there is something new.
        """
        if not self._recorded.artifacts:
            return self._result(PublishStatus.EMPTY, reason="PyTorch has recorded no artifact in this process")
        new = {ref: self._recorded.artifacts[ref] for ref in self._session.news(self._recorded.artifacts)}
        if not new:
            return self._result(PublishStatus.UNCHANGED)
        with self._clock.stage("open"):
            catalog = Catalog(open_store(), self._recorded.environment)
        parents = set(self._session.bundles)
        with self._clock.stage("list"):
            left = self._uncovered(new, catalog, parents)
        if not left:
            self._session.remember(new, parents)
            return self._result(
                PublishStatus.COVERED, reason="other processes have published an artifact under every key"
            )
        try:
            result = self._write(catalog, left, parents)
        except AccessError as error:
            return self._result(PublishStatus.READ_ONLY, reason=str(error), error=error)
        self._session.remember(new, {*parents, *filter(None, [result.bundle])})
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
            covered = {(ref.kind, ref.key) for ref in manifest.artifacts}
            remaining = {ref: a for ref, a in left.items() if (ref.kind, ref.key) not in covered}
            if len(remaining) < len(left):
                parents.add(manifest.bundle)
            left = remaining
        return left

    def _write(self, catalog: Catalog, left: _Found, parents: set[str]) -> PublishResult:
        # A name that is taken by a bundle nobody can use is avoided by naming that bundle as a parent.
        while (bundle := bundle_id(left, parents)) in self._session.unusable:
            parents.add(bundle)
        refs = sorted(left, key=lambda ref: (ref.kind, ref.key, ref.digest))
        with self._clock.stage("upload"):
            chunks = self._upload(catalog, [left[ref] for ref in refs])
            manifest = describe(
                environment=self._recorded.environment,
                artifacts=refs,
                chunks=chunks,
                parents=parents,
                labels=self._labels,
            )
            created = catalog.announce(manifest)
        if created:
            self._session.written.add(bundle)
        carried = [chunk for chunk in chunks if chunk.part != EXPLAIN_PART]
        return self._result(
            PublishStatus.PUBLISHED if created else PublishStatus.DUPLICATE,
            reason="" if created else "another process published the same bundle a moment earlier",
            bundle=bundle,
            artifacts=Counter(ref.kind for ref in refs),
            bytes_stored=sum(chunk.stored_size for chunk in carried),
            bytes_raw=sum(chunk.raw_size for chunk in carried),
        )

    def _upload(self, catalog: Catalog, artifacts: Sequence[Artifact]) -> tuple[ChunkRef, ...]:
        wanted = (*payloads(artifacts), *self._explain_data(artifacts))
        total, done = sum(payload.weight for payload in wanted), 0

        def uploaded(ref: ChunkRef) -> None:
            nonlocal done
            done += ref.raw_size
            self._progress(Progress(stage="upload", done=min(done, total), total=total))

        return catalog.write(wanted, uploaded)

    def _explain_data(self, artifacts: Sequence[Artifact]) -> tuple[Payload, ...]:
        """Describe the keys of the graphs; that a later miss could not be explained is no reason to publish nothing."""
        try:
            with self._clock.stage("explain"):
                return explain_payloads(artifacts)
        except Exception as error:  # noqa: BLE001 - it reads what torch wrote for other eyes
            _log.debug("no explain data: url=%s", self._url, exc_info=True)
            self._warnings.append(f"no explain data was published: {type(error).__name__}: {str(error)[:200]}")
            return ()

    def _result(self, status: PublishStatus, **known: Any) -> PublishResult:
        return PublishResult(url=self._url, status=status, warnings=tuple(self._warnings), **known)
