"""Write what this process compiled, or a plain blob holds, and nobody has published, to a store."""

import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from megacache import _compiler
from megacache._bundle import (
    Artifact,
    ArtifactRef,
    ChunkRef,
    FilesPart,
    Payload,
    artifact_payloads,
    bundle_id,
    checked_labels,
    describe,
    file_payloads,
    identify_artifact,
    is_portable_artifact,
    parse_blob,
)
from megacache._cache.explain import EXPLAIN_PART, explain_payloads
from megacache._cache.recording import Found, Recorded
from megacache._cache.results import PublishResult, PublishStatus
from megacache._cache.session import Session
from megacache._catalog import Catalog, affordable_manifests
from megacache._runtime import Deadline, Progress, ProgressCallback, Stopwatch, call, quiet
from megacache._settings import Settings
from megacache._store import Store, redacted
from megacache._trust import Keys, Signing
from megacache.errors import AccessError, FormatError, IntegrityError, SettingsError

_log = logging.getLogger("megacache")


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
        max_bytes: int | None = None,
        signing: Callable[[], Signing] = Signing,
    ) -> None:
        self._recorded = recorded
        self._environment = recorded.environment
        self._session = session
        self._clock = clock
        self._progress = progress
        self._url = url
        self._labels = labels
        self._max_bytes = max_bytes
        self._signing = signing
        self._warnings = list(recorded.warnings)

    def run(self, open_store: Callable[[], Store]) -> PublishResult:
        """Subtract what this process and others have published, upload the rest, then announce it.

        Keys are loaded, and the store is opened, only if there is something new.
        """
        if not self._recorded.found and not self._recorded.known:
            return self._result(PublishStatus.EMPTY, reason="PyTorch has recorded no artifact in this process")
        new = self._recorded.news(self._session)
        if not new:
            return self._result(PublishStatus.UNCHANGED)
        with self._clock.stage("keys"):
            signing = self._signing()
        if signing.objection:
            return self._result(PublishStatus.READ_ONLY, reason=signing.objection)
        return self._upload(new, open_store, signing)

    def _upload(self, new: Found, open_store: Callable[[], Store], signing: Signing) -> PublishResult:
        with self._clock.stage("open"):
            store = open_store()
            catalog = Catalog.of(store, self._environment, signing.policy)
        parents = set(self._session.bundles)
        with self._clock.stage("list"):
            left = self._uncovered(new, catalog, parents)
        if not left:
            self._session.remember(new.artifacts, parents, new.files)
            return self._result(
                PublishStatus.COVERED, reason="other processes have published an artifact under every key"
            )
        drafts = [self._draft(part, set(parents)) for part in left.bundles(self._environment.device_type)]
        if not self._fits(catalog, drafts):
            reason = f"what is new takes more than the {self._max_bytes:,} bytes allowed"
            return self._result(PublishStatus.TOO_LARGE, reason=reason)
        try:
            result = self._write_all(catalog, drafts, signing.signer)
        except AccessError as error:
            return self._result(PublishStatus.READ_ONLY, reason=str(error), error=error)
        self._session.remember(new.artifacts, parents, new.files)
        return result

    def _uncovered(self, new: Found, catalog: Catalog, parents: set[str]) -> Found:
        """Leave out what bundles new to this process hold under the same name; these become parents."""
        listing = catalog.list()
        self._session.unusable.update(listing.withdrawn)
        known = self._session.bundles | self._session.unusable
        left = new
        unknown = {bundle: size for bundle, size in listing.visible.items() if bundle not in known}
        for done in catalog.read(affordable_manifests(unknown)):
            manifest = done.value
            if manifest is None:
                self._session.give_up(done.item, done.fault)
                continue
            if self._environment.mismatches(manifest.environment):
                self._session.unusable.add(done.item)
                continue
            keys = {(ref.kind, ref.key) for ref in manifest.artifacts}
            remaining = left.without(keys, self._recorded.covered_by(manifest.files))
            if len(remaining) < len(left):
                parents.add(manifest.bundle)
            left = remaining
        return left

    def _draft(self, left: Found, parents: set[str]) -> "_Draft":
        files = self._recorded.files_part(left.files)
        # A name that is taken by a bundle nobody can use is avoided by naming that bundle as a parent.
        while (bundle := bundle_id(left.artifacts, parents, files)) in self._session.unusable:
            parents.add(bundle)
        refs = tuple(sorted(left.artifacts, key=lambda ref: (ref.kind, ref.key, ref.digest)))
        artifacts = [left.artifacts[ref] for ref in refs]
        parts = file_payloads(left.files[ref] for ref in files.index)
        payloads = (*artifact_payloads(artifacts), *parts, *self._explain_data(artifacts))
        return _Draft(bundle=bundle, parents=parents, found=left, artifacts=refs, files=files, payloads=payloads)

    def _fits(self, catalog: Catalog, drafts: Sequence["_Draft"]) -> bool:
        if self._max_bytes is None:
            return True
        with self._clock.stage("weigh"):
            return catalog.fits([payload for draft in drafts for payload in draft.payloads], self._max_bytes)

    def _write_all(self, catalog: Catalog, drafts: Sequence["_Draft"], signer: Any) -> PublishResult:
        """Write each bundle; the first one gives the result its name."""
        total, done = sum(payload.weight for draft in drafts for payload in draft.payloads), 0

        def uploaded(ref: ChunkRef) -> None:
            nonlocal done
            done += ref.raw_size
            self._progress(Progress(stage="upload", done=min(done, total), total=total))

        chunks: list[ChunkRef] = []
        created = False
        with self._clock.stage("upload"):
            for draft in drafts:
                written = catalog.write(draft.payloads, uploaded)
                created |= self._announce(catalog, draft, written, signer)
                chunks += [chunk for chunk in written if chunk.part != EXPLAIN_PART]
        files = [ref for draft in drafts for ref in draft.files.index]
        return self._result(
            PublishStatus.PUBLISHED if created else PublishStatus.DUPLICATE,
            reason="" if created else "another process published the same bundle a moment earlier",
            bundle=drafts[0].bundle,
            artifacts=Counter(ref.kind for draft in drafts for ref in draft.artifacts),
            files=len(files),
            bytes_files=sum(ref.size for ref in files),
            bytes_stored=sum(chunk.stored_size for chunk in chunks),
            bytes_raw=sum(chunk.raw_size for chunk in chunks),
        )

    def _announce(self, catalog: Catalog, draft: "_Draft", chunks: Sequence[ChunkRef], signer: Any) -> bool:
        manifest = describe(
            environment=self._environment,
            artifacts=draft.artifacts,
            chunks=chunks,
            parents=draft.parents,
            labels=self._labels,
            files=draft.files,
        )
        created = catalog.announce(manifest, signer)
        if created:
            self._session.written.add(draft.bundle)
        self._session.remember(draft.found.artifacts, {*draft.parents, draft.bundle}, draft.found.files)
        return created

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


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A bundle that is to be written."""

    bundle: str
    parents: set[str]
    found: Found
    artifacts: tuple[ArtifactRef, ...]
    files: FilesPart
    payloads: tuple[Payload, ...]


def import_blob(
    data: bytes,
    url: str,
    *,
    storage_options: Mapping[str, Any] | None,
    deadline: Deadline,
    labels: Mapping[str, str],
    progress: ProgressCallback,
) -> PublishResult:
    """Publish the artifacts of a blob for the environment of this process, but for those that are published.

    A blob does not say where it was compiled. Raises `MegacacheError`.
    """
    clock = Stopwatch()
    settings = Settings.read()
    url = settings.url_or_default(url)
    try:
        artifacts = list(parse_blob(data))
    except (FormatError, IntegrityError) as error:
        raise SettingsError(
            f"this is not a blob of PyTorch's: {error}", hint="give what torch.compiler.save_cache_artifacts() returned"
        ) from error
    portable = {identify_artifact(one): one for one in artifacts if is_portable_artifact(one)}
    left_out = sorted({one.kind for one in artifacts if not is_portable_artifact(one)})
    if not portable:
        raise SettingsError("this blob holds no artifact that a reader would accept", hint="compile and save again")
    recorded = Recorded(
        found=Found(artifacts=portable),
        guard={},
        known=False,
        probes=(),
        environment=_compiler.current_environment(),
        warnings=(f"artifacts that no reader would accept were left out: {', '.join(left_out)}",) if left_out else (),
    )
    publication = Publication(
        recorded,
        Session(),
        clock,
        quiet(progress),
        url=redacted(url),
        labels=checked_labels(labels),
        signing=lambda: call(lambda: Keys().signing(settings), deadline=deadline, doing="loading the signing key"),
    )
    result = publication.run(lambda: Store.open(url, storage_options=storage_options, deadline=deadline))
    return replace(result, seconds=clock.seconds())
