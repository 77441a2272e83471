"""What a URL is: what of it can be shown, what of it lasts, and the epoch at its end."""

import os
import re

from megacache.errors import SettingsError

_EPOCH = re.compile(r"[A-Za-z0-9._-]{1,64}")
_LOCAL = re.compile(r"(?:file|local):(?://)?|(?!.*(?:://|::))")
"""What begins the URL of a local folder."""


def redacted(url: str) -> str:
    """Take user, password and query, but an epoch, out of the URLs in a text, so that it can be shown."""
    return re.sub(r"(?<=://)[^/\s]*@|\?(?!epoch=[\w.-]{1,64}(?:\s|$))\S*?(?=::|\s|$)", "", url)


def lasting_url(url: str) -> str:
    """Make the URL of a local folder absolute: the processes that are handed it may work in other folders."""
    place, asked, epoch = url.partition("?epoch=")
    local = _LOCAL.match(place)
    if local is None:
        return url
    path = os.path.abspath(os.path.expanduser(place[local.end() :]))  # noqa: PTH100, PTH111 - as fsspec reads it
    return f"{local[0]}{path}{asked}{epoch}"


def split_epoch(url: str) -> tuple[str, str]:
    """Take the generation off a URL: of `s3://bucket/flux/v1?epoch=2` it is `2`.

    Raises `SettingsError` for one that is ill-formed, as with a variable that is unset.
    """
    place, asked, epoch = url.partition("?epoch=")
    if not asked:
        return url, ""
    if not _EPOCH.fullmatch(epoch):
        msg = "the epoch in the URL is ill-formed"
        raise SettingsError(msg, hint="give 1 to 64 letters, digits, dots, hyphens or underscores after ?epoch=")
    return place.rstrip("/"), epoch
