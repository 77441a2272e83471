"""The one redactor: takes credentials out of text that others wrote, those that were given and what looks like one.

What a client raises may repeat a URL, a header or a value of its options, whole or in part, quoted or escaped. Of the
options every text counts as secret, but for those of a few names that tell a place or a way.
"""

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote, unquote

from megacache._runtime import kept
from megacache._store.url import QUERY, USER, redacted
from megacache.errors import MegacacheError

_PLAIN_NAMES = frozenset(
    {
        *("account_name", "acl", "addressing_style", "bucket", "consistency", "container_name", "default_acl"),
        *("endpoint", "endpoint_url", "host", "hostname", "location", "mode", "project", "protocol", "proxies"),
        *("region", "region_name", "server_side_encryption", "signature_version", "target_protocol"),
    }
)
"""Names of options whose values are shown, but for a user, a password and a query in them."""
# Words that gcsfs takes for a token, and modes in which botocore tries again.
_PLAIN_VALUES = frozenset({"anon", "browser", "cache", "cloud", "google_default", "legacy", "standard"})
# A shorter text is not a secret, and would be found in every other.
_LEAST = 4
"""Characters of a secret."""
_LONG = 8
"""Characters from which on a secret is found within other words, too."""
# A process that runs for long may be given new credentials again and again.
_MOST = 4_096
_HIDDEN = "***"
_MARKS = re.compile(r"[:/@?#]")
_SEPARATORS = re.compile(r"[\s\"',;&=]+")
_NAMED = re.compile(
    r"""(?ix)
    ( \b(?:bearer|basic)\s+
    | [\w-]*(?:secret|token|passw|signature|credential|authorization|api_?key|account_?key)[\w-]*
      ["']? \s* [=:] \s* ["']?
      (?:(?:bearer|basic)\s+)? )
    [^\s"',;&]{4,}"""
)
"""What stands after a name that tells that it is secret."""

_known: dict[str, None] = kept({})
"""Secrets, in the order in which they were told."""


class ForeignError(Exception):
    """Stands for what a library raised, with its words and its traceback, and without what is secret in them."""


def keep_secret(url: str, options: Mapping[str, Any] | None = None) -> None:
    """Let no text show what is secret in a URL and in storage options; the newest few thousand are remembered."""
    for secret in sorted({*_in_url(url), *_in_options(options or {})}):
        _known[secret] = None
    for oldest in list(_known)[:-_MOST]:
        _known.pop(oldest, None)


def without_secrets(text: str) -> str:
    """Make a text that somebody else wrote fit to be shown."""
    # A copy, for another thread may learn a secret meanwhile; the longest first, for it may hold a shorter one.
    for secret in sorted(_known.copy(), key=len, reverse=True):
        if len(secret) >= _LONG:
            text = text.replace(secret, _HIDDEN)
        elif secret in text:
            text = re.sub(rf"(?<![^\W_]){re.escape(secret)}(?![^\W_])", _HIDDEN, text)
    return _NAMED.sub(rf"\g<1>{_HIDDEN}", redacted(text))


def showable(error: MegacacheError | None) -> MegacacheError | None:
    """Give the same error; a traceback tells what it came from by stand-ins, which show no secret."""
    chain: list[BaseException] = []
    cause: BaseException | None = error
    while cause is not None and cause not in chain:
        chain.append(cause)
        cause = cause.__cause__ or cause.__context__
    below: BaseException | None = None
    for one in reversed(chain):
        shown = one if isinstance(one, MegacacheError | ForeignError) else _stand_in(one)
        shown.__cause__, shown.__context__ = below, None
        below = shown
    return error


def _stand_in(error: BaseException) -> ForeignError:
    kind = type(error)
    return ForeignError(without_secrets(f"{kind.__module__}.{kind.__qualname__}: {error}")).with_traceback(
        error.__traceback__
    )


def _in_url(url: str) -> Iterator[str]:
    for user in USER.findall(url):
        yield from _forms(user[:-1])
        for mark in _MARKS.finditer(user):  # a client may cut it anywhere, as at a slash in the password
            yield from _forms(user[: mark.start()])
            yield from _forms(user[mark.end() : -1])
            yield from _forms(_MARKS.split(user[mark.end() :])[0])
    for query in QUERY.findall(url):
        yield from _in_value(query[1:])


def _in_options(options: Mapping[Any, Any]) -> Iterator[str]:
    for name, value in options.items():
        yield from _in_url(value) if name in _PLAIN_NAMES and isinstance(value, str) else _in_value(value)


def _in_value(value: object) -> Iterator[str]:
    if isinstance(value, Mapping):
        yield from _in_options(value)
    elif isinstance(value, list | tuple | set | frozenset):
        for item in value:
            yield from _in_value(item)
    elif isinstance(value, bytes):
        yield from _in_value(value.decode(errors="replace"))
    elif isinstance(value, str) and value not in _PLAIN_VALUES:
        yield from _forms(value)
        yield from _in_url(value)
        for part in _SEPARATORS.split(value):  # as of a header, a connection string or a key in lines
            yield from _forms(part) if len(part) >= _LONG else ()


def _forms(secret: str) -> Iterator[str]:
    # Clients quote, unquote and escape what they repeat.
    if len(secret.strip()) >= _LEAST:
        yield from {
            secret,
            quote(secret),
            quote(secret, safe=""),
            unquote(secret),
            repr(secret)[1:-1],
            json.dumps(secret)[1:-1],
        }
