"""The one door to fsspec: a URL prefix of write-once objects.

fsspec is imported by the call that opens a store, and by nobody outside this package.
"""

from megacache._store.secrets import keep_secret, sealed, without_secrets
from megacache._store.store import Entry, Store
from megacache._store.url import below, lasting_url, local_folder, meant_url, redacted, trimmed

__all__ = [
    "Entry",
    "Store",
    "below",
    "keep_secret",
    "lasting_url",
    "local_folder",
    "meant_url",
    "redacted",
    "sealed",
    "trimmed",
    "without_secrets",
]
