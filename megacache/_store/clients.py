"""How clients of stores are set up, unless the caller says otherwise: nothing stale, and an end to all waiting."""

from collections.abc import Mapping
from typing import Any

S3 = frozenset({"s3", "s3a"})
GCS = frozenset({"gs", "gcs"})
AZURE = frozenset({"abfs", "abfss", "az", "adl"})
WEB = frozenset({"http", "https"})
LOCAL = frozenset({"file", "local"})

_FRESH: Mapping[str, Any] = {"use_listings_cache": False, "skip_instance_cache": True}
_S3_OPTIONS: Mapping[str, Any] = {
    **_FRESH,
    "config_kwargs": {
        "connect_timeout": 3,
        "read_timeout": 10,
        # Of botocore's modes, this one knows that a 429 is to be tried again, whatever code comes with it.
        "retries": {"mode": "legacy", "total_max_attempts": 3},
        "max_pool_connections": 64,
    },
}
_GCS_OPTIONS: Mapping[str, Any] = {**_FRESH, "requests_timeout": 30}


def with_defaults(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Complete the storage options of a URL, for each link of its chain."""
    chain = [link.partition("://")[0] for link in url.split("::")]
    if len(chain) == 1:
        return _merged(_protocol_options(chain[0]), options)
    return {**options, **{link: _merged(_protocol_options(link), options.get(link) or {}) for link in chain}}


def _merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Let what is given override the defaults, one level down as well."""
    merged = {**defaults, **given}
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
        return _FRESH
    return {"skip_instance_cache": True}
