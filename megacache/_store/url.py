"""What a URL is: which part of it can be shown, where it ends, and whether it is a folder of this machine."""

import os
import re
from pathlib import Path

_LOCAL = re.compile(r"(?:file|local)://|(?!.*(?:://|::))")
"""What begins the URL of a local folder."""
USER = re.compile(
    r"""(?x)
    (?<=://) [^/\s]* @
    | (?<=://) [^/\s:@]* : (?! : | \d{1,5} (?:[/?\#\s:"');,]|$)) \S* @  # a slash in a password; a port is none
    | (?<![\w/:@.%+~-]) [\w.%+~-]* : (?!:|//) \S+ @  # without a protocol
    """
)
"""User and password, with the `@` after them."""
QUERY = re.compile(r"\?(?![\s\"'),.;]|$)\S*?(?=::|\s|$)")
"""The query of a URL, with its question mark; the question mark of a sentence does not count."""
_NEXT = re.compile(r"\s+(?=/|~|\.{1,2}/|[a-z][a-z0-9+.-]*(?:://|::))")
"""What lies between two places: a folder may have spaces in its name."""
_COPIES = re.compile(r"(?:(?:simplecache|filecache|blockcache|cached)(?:://)?::)+")
"""What begins the URL of a place before which fsspec keeps copies."""


def redacted(url: str) -> str:
    """Take user, password and query out of the URLs in a text, so that it can be shown."""
    return QUERY.sub("", USER.sub("", url))


def trimmed(url: str) -> str:
    """Take the slashes off the end of a URL, but for those without which it would be another: `memory://`, `/`."""
    found = url.rstrip("/")
    return url if not found or found.endswith(":") else found


def split_places(text: str) -> tuple[str, ...]:
    """Split a text into the URLs of places.

    White space separates two of them only where what follows begins as a place does: with `/`, `~`, `./`, `../` or a
    protocol. Elsewhere it is part of a name.
    """
    found = _NEXT.split(text)
    return tuple(filter(None, found if len(found) == 1 else map(str.strip, found)))


def below(url: str, path: str) -> str:
    """Name what lies below a URL."""
    base = trimmed(url)
    return f"{base}{path}" if base.endswith("/") else f"{base}/{path}"


def local_folder(url: str) -> Path | None:
    """Name the folder of this machine that a URL means, as fsspec reads it; None for any other place."""
    local = _LOCAL.match(url)
    if local is None:
        return None
    return Path(os.path.abspath(os.path.expanduser(url[local.end() :])))  # noqa: PTH100, PTH111 - no error, no links


def is_near(url: str) -> bool:
    """Tell whether reading from a place costs no more than reading from a disk of this machine."""
    place = url.rpartition("::")[2]
    return local_folder(place) is not None or place.startswith("memory:")


def behind_copies(url: str) -> str:
    """Name the place behind a cache of fsspec's copies."""
    # A broken download leaves half an object in such a cache, and nothing is ever removed from it.
    copies = _COPIES.match(url)
    return url[copies.end() :] if copies else url
