"""What a URL is: what of it can be shown, what of it lasts."""

import os
import re

from megacache.errors import SettingsError

_LOCAL = re.compile(r"(?:file|local):(?://)?|(?!.*(?:://|::))")
"""What begins the URL of a local folder."""


def redacted(url: str) -> str:
    """Take user, password and query out of the URLs in a text, so that it can be shown."""
    return re.sub(r"(?<=://)[^/\s]*@|\?\S*?(?=::|\s|$)", "", url)


def lasting_url(url: str) -> str:
    """Make the URL of a local folder absolute: the processes that are handed it may work in other folders."""
    local = _LOCAL.match(url)
    if local is None:
        return url
    path = os.path.abspath(os.path.expanduser(url[local.end() :]))  # noqa: PTH100, PTH111 - as fsspec reads it
    return f"{local[0]}{path}"


def refuse_epoch(url: str) -> None:
    """Raise `SettingsError` for a URL that asks for a generation of a cache, which now would be another place."""
    if "?epoch=" in url:
        msg = f"{redacted(url)}: a URL has no ?epoch= any more"
        raise SettingsError(msg, hint="use another URL, such as one that ends in /v2")
