"""Name a place in one way, however its URL is written: signatures are for it."""

import posixpath

from megacache._store.clients import AZURE, GCS, LOCAL, S3
from megacache._store.faults import MISUSE, faults
from megacache._store.spelling import check_url
from megacache._store.url import redacted

_CACHING = frozenset({"simplecache", "filecache", "blockcache"})
"""What keeps copies of the objects of the place behind it."""


def scope_of(url: str) -> str:
    """Name a place in one way, however its URL is written, and without what must not be shown: user, password, query.

    No request is sent. A cache of copies counts as the place behind it; any other chain keeps all its links. The
    query of an archive on the web counts as a credential, not as part of the name. Raises `SettingsError` if nothing
    installed speaks a protocol, or if the URL does not mean one place.
    """
    check_url(url)
    links = url.split("::")
    with faults(redacted(url), "looking for its client", misuse=MISUSE):
        scopes = [_link_scope(link, chained=len(links) > 1) for link in links]
    return "::".join(scope for scope in scopes if scope not in _CACHING)


def _link_scope(link: str, *, chained: bool) -> str:
    from fsspec.core import get_filesystem_class
    from fsspec.registry import available_protocols

    # In a chain a name alone may be a protocol, as in `simplecache::s3://…`.
    named, found, rest = link.partition("://")
    if not found and not (chained and named in available_protocols()):
        named, rest = "file", link
    implementation = get_filesystem_class(named)
    protocol = implementation.protocol if isinstance(implementation.protocol, str) else implementation.protocol[0]
    if protocol in LOCAL:
        return f"{protocol}://{_folder(implementation._strip_protocol(link if rest else '/'))}"
    if chained and not rest:
        return protocol
    before = _before_at(protocol, rest.partition("/")[0])
    place = redacted(f"{protocol}://{rest}").partition("://")[2]
    if protocol in S3 | GCS | AZURE:  # keys are not paths: `a//b` is not `a/b`
        return f"{protocol}://{before}{place.strip('/')}"
    # A path can be written in several ways, an authority in one.
    authority, _, path = ("", "", place) if protocol == "memory" else place.partition("/")
    return f"{protocol}://{before}{authority}{_folder(path)}"


def _before_at(protocol: str, authority: str) -> str:
    """Give the name before an `@` that is not a user: Azure's container, or a repository of GitHub."""
    before, at, _ = authority.rpartition("@")
    if protocol in AZURE:
        before = before.partition(":")[0]
    return f"{before}{at}" if protocol in AZURE or protocol == "github" else ""


def _folder(path: str) -> str:
    return posixpath.normpath(f"/{path.lstrip('/')}").rstrip("/")
