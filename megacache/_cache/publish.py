"""Write what this process compiled to a store, without what is published already."""

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

from megacache._bundle import (
    EXPLAIN_PART,
    Artifact,
    ArtifactRef,
    ChunkRef,
    Environment,
    EnvironmentPrefix,
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
from megacache._cache.uncovered import Uncovered
from megacache._catalog import Catalog, NearestCatalog, Places, Turn
from megacache._runtime import Progress
from megacache._store import Store, redacted, without_secrets
from megacache._trust import Signing
from megacache.errors import AccessError

_log = logging.getLogger("megacache")
NO_LABELS: Mapping[str, str] = {}
_MANY_BUNDLES = 100
"""Visible bundles of one environment from which on a warm start makes more requests than it should."""
_PATIENCE, _PATIENCE_SHARE = 10.0, 0.25
"""Seconds that a publication waits, in all, for others who publish some of the same, and which part of its time."""
_Visible = Sequence[tuple[Environment, AbstractSet[str]]]
"""Environments, with the ids of their bundles."""


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
        self._warnings = list(recorded.warnings)
        self._takes_turns = True

    def run(self) -> PublishResult:
        """Subtract what this process and others have published, upload the rest, then announce it.

        Keys are loaded, and the store is opened, only if there is something new.
        """
        with self._session.publishing(self._call.deadline) as within_another:
            # It would wait for the one that waits for it; and a worker whose others wait has said so already.
            self._takes_turns = not within_another and not self._session.keeps_others_waiting
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
        result, visible = self._upload(new, signing, store)
        if result.status is PublishStatus.READ_ONLY and self._call.nearer:
            return self._upload_nearer(new, signing, result)
        return self._compacted(result, visible, store, signing)

    def _compacted(self, result: PublishResult, visible: "_Visible", store: Store, signing: Signing) -> PublishResult:
        """Merge the bundles of an environment if there are too many, and somebody asked for that."""
        above = self._compact_above
        if above is None or result.status is not PublishStatus.PUBLISHED:
            return result
        crowded = [environment for environment, bundles in visible if len(bundles) > above]
        with self._call.clock.stage("compact"):
            told = [compact(store, environment, signing) for environment in crowded]
        return replace(result, warnings=(*result.warnings, *filter(None, told)))

    def _upload_nearer(self, new: Found, signing: Signing, refused: PublishResult) -> PublishResult:
        """Publish to the last of the nearer places that takes it; where none does, say what the cache itself said."""
        places = self._call.open_places()
        for number, place in reversed(tuple(enumerate(places))[:-1]):
            if place.store is None:
                continue
            result, _ = self._upload(new, signing, place.store, places.since(number))
            if result.status is not PublishStatus.READ_ONLY:
                told = f"published to {place.url}, because {refused.url} refused it: {refused.reason}"
                return replace(result, url=place.url, warnings=(*result.warnings, told))
        return refused

    def _upload(
        self, new: Found, signing: Signing, store: Store, places: Places | None = None
    ) -> "tuple[PublishResult, _Visible]":
        """Publish to a store what is not known to be published there, or in any of some places.

        Give, too, the bundles of each environment that was published to.
        """
        # Of what was refused elsewhere, nothing is told twice.
        self._warnings[:] = self._recorded.warnings
        with self._call.clock.stage("list"):
            rests = [self._rest(*one, signing, store, places) for one in self._recorded.by_environment(new)]
        try:
            with ExitStack() as turns:
                if places is None and self._takes_turns:
                    self._take_turns(rests, store, turns)
                return self._upload_rests(new, rests, signing, store)
        except AccessError as error:  # many readers have credentials that cannot write
            return self._result(PublishStatus.READ_ONLY, reason=str(error), error=error), ()

    def _rest(
        self, environment: Environment, part: Found, signing: Signing, store: Store, places: Places | None
    ) -> Uncovered:
        prefix = _prefix(environment)
        holding = (
            Catalog(store, prefix, signing.policy) if places is None else NearestCatalog(places, prefix, signing.policy)
        )
        rest = Uncovered(part, environment, holding, self._recorded, self._session)
        if (held := len(rest.listing.visible)) >= _MANY_BUNDLES and self._compact_above is None:
            self._warnings.append(
                f"{held} bundles are published for this environment, which each warm start reads: "
                f"`megacache compact {redacted(self._call.url)}` merges them"
            )
        return rest

    def _take_turns(self, rests: Iterable[Uncovered], store: Store, turns: ExitStack) -> None:
        """Wait for others who publish some of the same at this moment, but not for long."""
        patience = self._call.deadline.sooner(min(_PATIENCE, self._call.deadline.remaining() * _PATIENCE_SHARE))
        with self._call.clock.stage("turn"):
            for rest in rests:
                turn = Turn(store.within(patience), _prefix(rest.environment))
                turns.callback(turn.end)
                rest.take_turn(turn, patience)

    def _upload_rests(
        self, new: Found, rests: Sequence[Uncovered], signing: Signing, store: Store
    ) -> "tuple[PublishResult, _Visible]":
        drafts = [self._draft(one, rest, signing, store) for rest in rests for one in rest.left.bundles()]
        known = set(self._session.bundles).union(*(rest.parents for rest in rests))
        if not drafts:
            self._session.cover(new.artifacts, known, new.files)
            reason = "other processes have published an artifact under every key and guard"
            return self._result(PublishStatus.COVERED, reason=reason), ()
        if not self._fits(drafts):
            reason = f"what is new takes more than the {self._max_bytes:,} bytes allowed"
            return self._result(PublishStatus.TOO_LARGE, reason=reason), ()
        result = self._write_all(drafts, signing.signer)
        self._session.cover(new.artifacts, known, new.files)
        return result, [
            (
                rest.environment,
                rest.listing.visible.keys() | {one.bundle for one in drafts if one.environment is rest.environment},
            )
            for rest in rests
            if rest.left
        ]

    def _draft(self, left: Found, rest: Uncovered, signing: Signing, store: Store) -> "_Draft":
        environment, parents = rest.environment, set(rest.parents)
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
            catalog=Catalog(store, _prefix(environment), signing.policy),
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


def _prefix(environment: Environment) -> EnvironmentPrefix:
    return environment_prefix(environment.device, environment.fingerprint)
