"""Write what this process compiled to a store, without what is published already."""

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from megacache._bundle import (
    EXPLAIN_PART,
    Artifact,
    ArtifactRef,
    ChunkRef,
    FilesPart,
    Payload,
    artifact_payloads,
    bundle_id,
    describe,
    file_payloads,
)
from megacache._cache.call import Call
from megacache._cache.compacting import compact
from megacache._cache.explain import explain_payloads
from megacache._cache.recording import Found, Recorded
from megacache._cache.results import PublishResult, PublishStatus
from megacache._cache.session import Session
from megacache._catalog import Catalog, affordable_manifests, catalog_of
from megacache._runtime import Progress
from megacache._store import Store, redacted, without_secrets
from megacache._trust import Signing
from megacache.errors import AccessError

_log = logging.getLogger("megacache")
NO_LABELS: Mapping[str, str] = {}
_MANY_BUNDLES = 100
"""Visible bundles of one environment from which on a warm start makes more requests than it should."""


class Publication:
    """One publication."""

    def __init__(
        self,
        call: Call,
        recorded: Recorded,
        session: Session,
        *,
        labels: Mapping[str, str] = NO_LABELS,
        max_bytes: int | None = None,
        compact_above: int | None = None,
    ) -> None:
        self._call = call
        self._recorded = recorded
        self._environment = recorded.environment
        self._session = session
        self._labels = labels
        self._max_bytes = max_bytes
        self._compact_above = compact_above
        self._bundles = 0
        self._warnings = list(recorded.warnings)

    def run(self) -> PublishResult:
        """Subtract what this process and others have published, upload the rest, then announce it.

        Keys are loaded, and the store is opened, only if there is something new.
        """
        with self._session.publishing(self._call.deadline):
            return self._publish()

    def _publish(self) -> PublishResult:
        if not self._recorded.found and not self._recorded.known:
            return self._result(PublishStatus.EMPTY, reason="PyTorch has recorded no artifact in this process")
        new = self._recorded.news(self._session)
        if not new:
            return self._result(PublishStatus.UNCHANGED)
        signing = self._call.signing()
        if signing.objection:
            return self._result(PublishStatus.READ_ONLY, reason=signing.objection)
        store = self._call.open_store()
        result = self._upload(new, signing, store, Catalog.of(store, self._environment, signing.policy))
        if result.status is PublishStatus.READ_ONLY and self._call.nearer:
            return self._upload_nearer(new, signing, result)
        return self._compacted(result, store, signing)

    def _compacted(self, result: PublishResult, store: Store, signing: Signing) -> PublishResult:
        """Merge the bundles of this environment if there are too many, and somebody asked for that."""
        added = len(result.bundles) if result.status is PublishStatus.PUBLISHED else 0
        if self._compact_above is None or not added or self._bundles + added <= self._compact_above:
            return result
        with self._call.clock.stage("compact"):
            told = compact(store, self._environment, signing)
        return replace(result, warnings=(*result.warnings, told)) if told else result

    def _upload_nearer(self, new: Found, signing: Signing, refused: PublishResult) -> PublishResult:
        """Publish to the last of the nearer places that takes it; where none does, say what the cache itself said."""
        places = self._call.open_places()
        for number, place in reversed(tuple(enumerate(places))[:-1]):
            if place.store is None:
                continue
            known = catalog_of(places.since(number), self._environment, signing.policy)
            result = self._upload(new, signing, place.store, known)
            if result.status is not PublishStatus.READ_ONLY:
                told = f"published to {place.url}, because {refused.url} refused it: {refused.reason}"
                return replace(result, url=place.url, warnings=(*result.warnings, told))
        return refused

    def _upload(self, new: Found, signing: Signing, store: Store, known: Catalog) -> PublishResult:
        """Publish to a store what is not known to be published."""
        catalog = Catalog.of(store, self._environment, signing.policy)
        parents = set(self._session.bundles)
        with self._call.clock.stage("list"):
            left = self._uncovered(new, known, parents)
        if not left:
            self._session.cover(new.artifacts, parents, new.files)
            return self._result(
                PublishStatus.COVERED, reason="other processes have published an artifact under every key and guard"
            )
        drafts = [self._draft(part, set(parents)) for part in left.bundles(self._environment.device_type)]
        if not self._fits(catalog, drafts):
            reason = f"what is new takes more than the {self._max_bytes:,} bytes allowed"
            return self._result(PublishStatus.TOO_LARGE, reason=reason)
        try:
            result = self._write_all(catalog, drafts, signing.signer)
        except AccessError as error:  # many readers have credentials that cannot write
            return self._result(PublishStatus.READ_ONLY, reason=str(error), error=error)
        self._session.cover(new.artifacts, parents, new.files)
        return result

    def _uncovered(self, new: Found, catalog: Catalog, parents: set[str]) -> Found:
        """Leave out what bundles new to this process hold, in whatever bytes; these become parents."""
        listing = catalog.list()
        self._session.rule_out(listing.withdrawn)
        self._bundles = len(listing.visible)
        if self._bundles >= _MANY_BUNDLES and self._compact_above is None:
            self._warnings.append(
                f"{self._bundles} bundles are published for this environment, which each warm start reads: "
                f"`megacache compact {redacted(self._call.url)}` merges them"
            )
        known = self._session.bundles | self._session.unusable
        left = new
        unknown = {bundle: size for bundle, size in listing.visible.items() if bundle not in known}
        for done in catalog.knowing(listing).read(affordable_manifests(unknown)):
            manifest = done.value
            if manifest is None:
                self._session.give_up(done.item, done.fault)
                continue
            if self._environment.mismatches(manifest.environment):
                self._session.rule_out([done.item])
                continue
            otherwise = self._recorded.defined_otherwise(manifest.operators)
            held = [ref for ref in manifest.artifacts if (ref.kind, ref.key) not in otherwise]
            remaining = left.without(held, self._recorded.covered_by(manifest.files))
            if len(remaining) < len(left):
                parents.add(manifest.bundle)
            left = remaining
        return left

    def _draft(self, left: Found, parents: set[str]) -> "_Draft":
        files = self._recorded.files_part(left.files)
        operators = self._recorded.operators_of(left.artifacts.values())
        # An unusable bundle may have this name. With that bundle as a parent, the new one gets another.
        while (bundle := bundle_id(left.artifacts, parents, files, operators)) in self._session.unusable:
            parents.add(bundle)
        refs = tuple(sorted(left.artifacts, key=lambda ref: (ref.kind, ref.key, ref.digest)))
        artifacts = [left.artifacts[ref] for ref in refs]
        parts = file_payloads(left.files[ref] for ref in files.index)
        payloads = (*artifact_payloads(artifacts), *parts, *self._explain_data(artifacts))
        return _Draft(
            bundle=bundle,
            parents=parents,
            found=left,
            artifacts=refs,
            files=files,
            operators=operators,
            payloads=payloads,
        )

    def _fits(self, catalog: Catalog, drafts: Sequence["_Draft"]) -> bool:
        if self._max_bytes is None:
            return True
        with self._call.clock.stage("weigh"):
            return catalog.fits([payload for draft in drafts for payload in draft.payloads], self._max_bytes)

    def _write_all(self, catalog: Catalog, drafts: Sequence["_Draft"], signer: Any) -> PublishResult:
        total, done = sum(payload.weight for draft in drafts for payload in draft.payloads), 0

        def uploaded(ref: ChunkRef) -> None:
            nonlocal done
            done += ref.raw_size
            # The weights are estimates, which the chunks may exceed.
            self._call.progress(Progress(stage="upload", done=min(done, total), total=total))

        chunks: list[ChunkRef] = []
        created = False
        with self._call.clock.stage("upload"):
            for draft in drafts:
                written = catalog.write(draft.payloads, uploaded)
                created |= self._announce(catalog, draft, written, signer)
                chunks += [chunk for chunk in written if chunk.part != EXPLAIN_PART]
        files = [ref for draft in drafts for ref in draft.files.index]
        return self._result(
            PublishStatus.PUBLISHED if created else PublishStatus.DUPLICATE,
            reason="" if created else "another process published the same bundle a moment earlier",
            bundles=tuple(draft.bundle for draft in drafts),
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
            operators=draft.operators,
        )
        created = catalog.announce(manifest, signer)
        if created:
            self._session.write(draft.bundle)
        self._session.cover(draft.found.artifacts, {*draft.parents, draft.bundle}, draft.found.files)
        return created

    def _explain_data(self, artifacts: Sequence[Artifact]) -> tuple[Payload, ...]:
        try:
            with self._call.clock.stage("explain"):
                return explain_payloads(artifacts)
        except Exception as error:  # noqa: BLE001 - it reads what torch wrote for other eyes
            _log.debug("no explain data: url=%s", redacted(self._call.url), exc_info=True)
            self._warnings.append(
                f"no explain data was published: {type(error).__name__}: {without_secrets(str(error))[:200]}"
            )
            return ()

    def _result(self, status: PublishStatus, **known: Any) -> PublishResult:
        return PublishResult(url=redacted(self._call.url), status=status, warnings=tuple(self._warnings), **known)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draft:
    """A bundle that is to be written."""

    bundle: str
    parents: set[str]
    found: Found
    artifacts: tuple[ArtifactRef, ...]
    files: FilesPart
    operators: Mapping[str, str]
    payloads: tuple[Payload, ...]
