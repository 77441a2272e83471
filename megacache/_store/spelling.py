"""Refuse a URL that does not mean one place to all who read it, and say how it is spelt."""

import os.path
import re
from collections.abc import Iterable

from megacache._store.clients import AZURE, GCS, LOCAL, S3, WEB
from megacache._store.url import behind_copies, local_folder, redacted, split_places
from megacache.errors import SettingsError

_OBJECTS = S3 | GCS | AZURE
_UNFINISHED = re.compile(rf"(?P<protocol>{'|'.join(_OBJECTS | WEB | LOCAL | {'hf', 'memory'})})(?::/?|//)(?=[^/])")
_NAMED = re.compile(r"(?P<protocol>[A-Za-z][A-Za-z0-9+.-]*):/?(?=[^/:])")
"""What begins as the URL of any protocol does whose two slashes are not there."""


def check_url(url: str) -> None:
    """Raise `SettingsError` for a URL that does not mean one place to whoever writes, reads or signs there.

    fsspec would quietly take such a URL for a folder of the working directory, or write under one name and look under
    another.
    """
    first, *behind = links = behind_copies(url).split("::")
    if mistake := _mistake(first):
        why, *meant = mistake
        right = ", or ".join(redacted("::".join([one, *behind])) for one in meant)
        raise SettingsError(f"{redacted(url)} {why}", hint=f"did you mean {right}?")
    if any(_asks(link, behind=link is not first) for link in links):
        hint = "use another URL, such as one that ends in /v2; give options of the client as storage options"
        raise SettingsError(f"{redacted(url)}: the URL of a cache has no query", hint=hint)


def lasting_url(places: Iterable[str]) -> str:
    """Write places as one text, local folders absolute: the processes that are handed it may work in other folders."""
    return " ".join(map(_lasting, places))


def _lasting(url: str) -> str:
    check_url(url)
    if len(split_places(url)) > 1:
        hint = "rename the folder: white space before a slash separates two places"
        raise SettingsError(f"{redacted(url)} cannot be told from two places", hint=hint)
    folder = local_folder(url)
    begin = url[: url.find("://") + 3] if "://" in url else ""
    return url if folder is None else f"{begin}{folder}"


def _mistake(url: str) -> tuple[str, ...] | None:
    """Say what is wrong with a URL, and what may be meant."""
    protocol, found, rest = url.partition("://")
    if found and url != url.strip():
        return "has white space around it", url.strip()
    # A folder may have such a name.
    if (unfinished := _unfinished(url)) and not os.path.exists(url):  # noqa: PTH110 - no error
        protocol = unfinished["protocol"].lower()
        slashes = "///" if protocol in LOCAL else "//"
        return "lacks a colon or a slash", f"{protocol}:{slashes}{url[unfinished.end() :]}"
    if protocol in LOCAL and rest.partition("/")[0] == "localhost":
        return "names a host", f"{protocol}://{rest.removeprefix('localhost') or '/'}"
    if protocol in LOCAL and rest and rest[0] not in "/~.":
        return "lacks a slash", f"{protocol}:///{rest}", f"./{rest}"
    if protocol in _OBJECTS and "//" in f"/{rest.rstrip('/')}":
        return "has a folder without a name", f"{protocol}://{re.sub('/+', '/', rest).strip('/')}"
    return None


def _unfinished(url: str) -> re.Match[str] | None:
    if found := _UNFINISHED.match(url):
        return found
    named = _NAMED.match(url)
    if named is None:
        return None
    from fsspec.registry import available_protocols  # only for what looks like a URL and is none

    return named if named["protocol"].lower() in available_protocols() else None


def _asks(link: str, *, behind: bool) -> bool:
    # An archive on the web holds the store, and may need a query to be read.
    if behind and link.partition("://")[0] in WEB:
        return False
    # Taken literally, a URL of an older version with an epoch would be an empty folder.
    return "?" in link and ("?epoch=" in link or local_folder(link) is None)
