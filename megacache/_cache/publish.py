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
    Environment,
    FilesPart,
    Payload,
    artifact_payloads,
    bundle_id,
    describe,
    environment_prefix,
    file_payloads,
)
from megacache._cache.call import Call
from megacache._cache.compacting import compact
from megacache._cache.explain import explain_payloads
from megacache._cache.recording import Found, Recorded
from megacache._cache.results import PublishResult, PublishStatus
from megacache._cache.session import Session
from megacache._catalog import Catalog, NearestCatalog, Places, affordable_manifests
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
        self._session = session
        self._labels = labels
        self._max_bytes = max_bytes
        self._compact_above = compact_above
        self._held: list[tuple[Environment, int]] = []
        """Each environment that was published to, with the number of its bundles."""
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
        result = self._upload(new, signing, store)
        if result.status is PublishStatus.READ_ONLY and self._call.nearer:
            return self._upload_nearer(new, signing, result)
        return self._compacted(result, store, signing)

    def _compacted(self, result: PublishResult, store: Store, signing: Signing) -> PublishResult:
        """Merge the bundles of an environment if there are too many, and somebody asked for that."""
        if self._compact_above is None or result.status is not PublishStatus.PUBLISHED:
            return result
        crowded = [environment for environment, held in self._held if held > self._compact_above]
        with self._call.clock.stage("compact"):
            told = [compact(store, environment, signing) for environment in crowded]
        return replace(result, warnings=(*result.warnings, *filter(None, told)))

    def _upload_nearer(self, new: Found, signing: Signing, refused: PublishResult) -> PublishResult:
        """Publish to the last of the nearer places that takes it; where none does, say what the cache itself said."""
        places = self._call.open_places()
        for number, place in reversed(tuple(enumerate(places))[:-1]):
            if place.store is None:
                continue
            result = self._upload(new, signing, place.store, places.since(number))
            if result.status is not PublishStatus.READ_ONLY:
                told = f"published to {place.url}, because {refused.url} refused it: {refused.reason}"
                return replace(result, url=place.url, warnings=(*result.warnings, told))
        return refused

    def _upload(self, new: Found, signing: Signing, store: Store, places: Places | None = None) -> PublishResult:
        """Publish to a store what is not known to be published there, or in any of some places."""
        known = set(self._session.bundles)
        drafts: list[_Draft] = []
        self._held.clear()
        # Of what was refused elsewhere, nothing is told twice.
        self._warnings[:] = self._recorded.warnings
        with self._call.clock.stage("list"):
            for environment, part in self._recorded.by_environment(new):
                prefix = environment_prefix(environment.device, environment.fingerprint)
                catalog, parents = Catalog(store, prefix, signing.policy), set(self._session.bundles)
                holding = catalog if places is None else NearestCatalog(places, prefix, signing.policy)
                left, held = self._uncovered(part, environment, holding, parents)
                added = [self._draft(one, environment, catalog, set(parents)) for one in left.bundles()]
                self._held.append((environment, held + len(added) if added else 0))
                drafts += added
                known |= parents
        if not drafts:
            self._session.cover(new.artifacts, known, new.files)
            return self._result(
                PublishStatus.COVERED, reason="other processes have published an artifact under every key and guard"
            )
        if not self._fits(drafts):
            reason = f"what is new takes more than the {self._max_bytes:,} bytes allowed"
            return self._result(PublishStatus.TOO_LARGE, reason=reason)
        try:
            result = self._write_all(drafts, signing.signer)
        except AccessError as error:  # many readers have credentials that cannot write
            return self._result(PublishStatus.READ_ONLY, reason=str(error), error=error)
        self._session.cover(new.artifacts, known, new.files)
        return result

    def _uncovered(
        self, new: Found, environment: Environment, catalog: Catalog, parents: set[str]
    ) -> tuple[Found, int]:
        """Leave out what bundles new to this process hold, in whatever bytes; these become parents.

        Give, too, the number of bundles.
        """
        listing = catalog.list()
        self._session.rule_out(listing.withdrawn)
        if len(listing.visible) >= _MANY_BUNDLES and self._compact_above is None:
            self._warnings.append(
                f"{len(listing.visible)} bundles are published for this environment, which each warm start reads: "
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
            if environment.mismatches(manifest.environment):
                self._session.rule_out([done.item])
                continue
            otherwise = self._recorded.defined_otherwise(manifest.operators)
            held = [ref for ref in manifest.artifacts if (ref.kind, ref.key) not in otherwise]
            remaining = left.without(held, self._recorded.covered_by(manifest.files))
            if len(remaining) < len(left):
                parents.add(manifest.bundle)
            left = remaining
        return left, len(listing.visible)

    def _draft(self, left: Found, environment: Environment, catalog: Catalog, parents: set[str]) -> "_Draft":
        files = self._recorded.files_part(left.files, environment)
        shared = environment.is_for_any_cpu
        operators = self._recorded.operators_of(left.artifacts.values())
        # An unusable bundle may have this name. With that bundle as a parent, the new one gets another.
        while (
            bundle := bundle_id(left.artifacts, parents, files, operators, for_any_cpu=shared)
        ) in self._session.unusable:
            parents.add(bundle)
        refs = tuple(sorted(left.artifacts, key=lambda ref: (ref.kind, ref.key, ref.digest)))
        artifacts = [left.artifacts[ref] for ref in refs]
        parts = file_payloads(left.files[ref] for ref in files.index)
        payloads = (*artifact_payloads(artifacts), *parts, *self._explain_data(artifacts))
        return _Draft(
            environment=environment,
            catalog=catalog,
            bundle=bundle,
            parents=parents,
            found=left,
            artifacts=refs,
            files=files,
            operators=operators,
            payloads=payloads,
        )

    def _fits(self, drafts: Sequence["_Draft"]) -> bool:
        if self._max_bytes is None:
            return True
        with self._call.clock.stage("weigh"):
            payloads = [payload for draft in drafts for payload in draft.payloads]
            return drafts[0].catalog.fits(payloads, self._max_bytes)

    def _write_all(self, drafts: Sequence["_Draft"], signer: Any) -> PublishResult:
        total, done = sum(payload.weight for draft in drafts for payload in draft.payloads), 0

        def uploaded(ref: ChunkRef) -> None:
            nonlocal done
            done += ref.raw_size
            # The weights are estimates, which the chunks may exceed.
            self._call.progress(Progress(stage="upload", done=min(done, total), total=total))

        with self._call.clock.stage("upload"):
            written = [draft.catalog.write(draft.payloads, uploaded) for draft in drafts]
            # One right after the other: whoever waits for the first bundle is to find them all.
            announced = [self._announce(*one, signer) for one in zip(drafts, written, strict=True)]
        created = any(announced)
        chunks = [chunk for refs in written for chunk in refs if chunk.part != EXPLAIN_PART]
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

    def _announce(self, draft: "_Draft", chunks: Sequence[ChunkRef], signer: Any) -> bool:
        manifest = describe(
            environment=draft.environment,
            artifacts=draft.artifacts,
            chunks=chunks,
            parents=draft.parents,
            labels=self._labels,
            files=draft.files,
            operators=draft.operators,
        )
        created = draft.catalog.announce(manifest, signer)
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

    environment: Environment
    catalog: Catalog
    bundle: str
    parents: set[str]
    found: Found
    artifacts: tuple[ArtifactRef, ...]
    files: FilesPart
    operators: Mapping[str, str]
    payloads: tuple[Payload, ...]
