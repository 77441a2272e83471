"""What a URL is: what of it can be shown, how it is written, and which of them are folders of this machine."""

import os
import re
from pathlib import Path

from megacache.errors import SettingsError

_LOCAL = re.compile(r"(?:file|local):(?://)?|(?!.*(?:://|::))")
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
"""What follows the question mark of a URL, and that; a question's own is left."""
_MISSPELT = re.compile(r"(?P<protocol>s3a?|gcs|gs|az|abfss?|file|memory|https?)(?::/?|//)(?=[^/])")
"""The beginning of a URL that lacks a colon or a slash, and would be taken for a folder."""


def redacted(url: str) -> str:
    """Take user, password and query out of the URLs in a text, so that it can be shown."""
    return QUERY.sub("", USER.sub("", url))


def trimmed(url: str) -> str:
    """Take the slashes off the end of a URL, but for those without which it would be another: `memory://`, `/`."""
    found = url.rstrip("/")
    return url if not found or found.endswith(":") else found


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


def lasting_url(url: str) -> str:
    """Make the URL of a local folder absolute: the processes that are handed it may work in other folders."""
    local, folder = _LOCAL.match(url), local_folder(url)
    return f"{local[0]}{folder}" if local else url


def meant_url(url: str) -> str | None:
    """Give the URL that was meant by one that lacks a colon or a slash; None for one that lacks nothing."""
    misspelt = _MISSPELT.match(url)
    if misspelt is None or Path(url).exists():
        return None
    slashes = "///" if misspelt["protocol"] == "file" else "//"
    return f"{misspelt['protocol']}:{slashes}{url[misspelt.end() :]}"


def refuse_epoch(url: str) -> None:
    """Raise `SettingsError` for a URL that asks for a generation of a cache, which now would be another place."""
    if "?epoch=" in url:
        msg = f"{redacted(url)}: a URL has no ?epoch= any more"
        raise SettingsError(msg, hint="use another URL, such as one that ends in /v2")
