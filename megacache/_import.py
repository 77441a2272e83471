"""Publish a plain blob, as PyTorch saved it without megacache."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from megacache import _compiler
from megacache._bundle import checked_labels, identify_artifact, is_portable_artifact, parse_blob
from megacache._publish import Publication
from megacache._recording import Found, Recorded
from megacache._results import PublishResult
from megacache._runtime import Deadline, ProgressCallback, Stopwatch, call, quiet
from megacache._session import Session
from megacache._settings import Settings
from megacache._store import Store, redacted
from megacache._trust import Keys
from megacache.errors import FormatError, IntegrityError, SettingsError


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
