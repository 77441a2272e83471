"""The one door to fsspec: a URL prefix of write-once objects.

fsspec is imported by the call that opens a store, and nowhere outside this package.
"""

from megacache._store.secrets import keep_secret, showable, without_secrets
from megacache._store.spelling import check_url, lasting_url
from megacache._store.store import Entry, Store, import_client
from megacache._store.url import below, is_near, local_folder, redacted, split_places, trimmed

__all__ = [
    "Entry",
    "Store",
    "below",
    "check_url",
    "import_client",
    "is_near",
    "keep_secret",
    "lasting_url",
    "local_folder",
    "redacted",
    "showable",
    "split_places",
    "trimmed",
    "without_secrets",
]
