"""Default options of the stores' clients: fresh listings, short timeouts, few retries."""

from collections.abc import Mapping
from typing import Any

from megacache._store.url import behind_copies

S3 = frozenset({"s3", "s3a"})
GCS = frozenset({"gs", "gcs"})
AZURE = frozenset({"abfs", "abfss", "az", "adl"})
WEB = frozenset({"http", "https"})
LOCAL = frozenset({"file", "local"})
ARCHIVES = frozenset({"zip", "tar", "libarchive"})

# What a client has kept of a listing hides what other processes wrote since.
_FRESH: Mapping[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
# By default, s3fs and gcsfs wait for more than 500 s for an endpoint that does not answer.
_S3_OPTIONS: Mapping[str, Any] = {
    **_FRESH,
    "config_kwargs": {
        "connect_timeout": 3,
        "read_timeout": 10,
        # Of botocore's modes, only this one tries again after a 429 with an unknown code.
        "retries": {"mode": "legacy", "total_max_attempts": 3},
        # By default 10, fewer than the chunks that are read at once.
        "max_pool_connections": 64,
    },
}
_AZURE_OPTIONS: Mapping[str, Any] = {**_FRESH, "connection_timeout": 3, "read_timeout": 10}
_GCS_OPTIONS: Mapping[str, Any] = {**_FRESH, "requests_timeout": 30}


def to_be_opened(url: str, options: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Give what fsspec is to open: the place behind a cache of copies, and options for each link of its chain."""
    place = behind_copies(url)
    links = [link.partition("://")[0] for link in place.split("::")]
    if place != url:  # what stands beside the options of the links was for the cache
        options = {link: options.get(link) or {} for link in links}
        options = options if len(links) > 1 else options[links[0]]
    if len(links) == 1:
        return place, _merged(_protocol_options(links[0]), options)
    return place, {**options, **{link: _merged(_protocol_options(link), options.get(link) or {}) for link in links}}


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    merged = {**defaults, **given}
    # Whoever gives one of the `config_kwargs` keeps the others.
    for name, default in defaults.items():
        if isinstance(default, Mapping) and isinstance(given.get(name), Mapping):
            merged[name] = {**default, **given[name]}
    return merged


def _protocol_options(protocol: str) -> Mapping[str, Any]:
    if protocol in S3:
        return _S3_OPTIONS
    if protocol in GCS:
        return _GCS_OPTIONS
    if protocol in AZURE:
        return _AZURE_OPTIONS
    return {"skip_instance_cache": True}
