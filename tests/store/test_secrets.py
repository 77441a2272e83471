"""No text that somebody else wrote shows a credential, in whatever position of a URL or of options it was given."""

import json
import re
import traceback
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from megacache._runtime import forget
from megacache._store import keep_secret, redacted, secrets, showable, without_secrets
from megacache.errors import MegacacheError, UnavailableError
from tests.kit.builders import UNHURRIED

CHARACTERS = "abcXYZ0189-_.~+/=:@?#%&!$'\"\\ ü"
hidden = st.text(CHARACTERS, min_size=8, max_size=40).filter(lambda text: text == text.strip())
in_urls = hidden.filter(lambda text: " " not in text and "/" not in text.partition("@")[2])
"""A password with both `@` and, after it, `/` is told from a path by nobody, unless it is percent-encoded."""
PORT = re.compile(r":|//|\d{1,5}(\W|$)")
"""What begins a password that reads as the port of a host, or as a path, or ends a link, unless it is quoted."""
protocols = st.sampled_from(["s3://", "gs://", "https://", "ftp://", "redis://", "simplecache::https://", ""])
names = st.sampled_from(["key", "secret", "token", "client_kwargs", "headers", "config_kwargs", "x", "retries"])
places = st.lists(st.one_of(names, st.just(None)), min_size=1, max_size=5)
"""Names of maps, and lists, on the way to a value."""


def spellings(secret: str) -> Iterator[str]:
    """Write a secret in the ways of clients, in the middle of other words."""
    for spelt in (
        secret,
        quote(secret),
        quote(secret, safe=""),
        repr(secret),
        json.dumps(secret),
        json.dumps([secret]),
    ):
        yield f'Invalid bucket name "KEY:{spelt}@bucket": Bucket name must match the regex'
        yield f"got an unexpected keyword argument '{spelt}'"
        yield f"x{spelt}x"


def check_hidden(secret: str) -> None:
    """Check that no way to write it comes through."""
    for text in spellings(secret):
        shown = without_secrets(text)
        forms = {secret, quote(secret), quote(secret, safe=""), repr(secret)[1:-1], json.dumps(secret)[1:-1]}
        assert not [form for form in forms if form in shown], (text, shown)


@UNHURRIED
@given(protocols, in_urls, st.sampled_from(["KEY:{}@", ":{}@", "{}:password@", "{}@"]))
def test_user_and_password_are_hidden(protocol: str, secret: str, form: str) -> None:
    """Raw or quoted, a password of a URL is in no text, nor in the URL as it is shown; nor is a user that is quoted."""
    forget()
    raw = ":{}@" in form and not PORT.match(secret)
    given_as = secret if raw else quote(secret, safe="")
    assume(protocol or ":" in form)
    url = f"{protocol}{form.format(given_as)}bucket/model"
    keep_secret(url)
    check_hidden(given_as)
    assert given_as not in redacted(url)


@UNHURRIED
@given(in_urls)
def test_query_is_hidden(secret: str) -> None:
    """So is what a query holds, and each of its values."""
    forget()
    value = quote(secret, safe="")
    keep_secret(f"https://host/x?sv=2030&sig={value}::s3://bucket")
    check_hidden(value)
    assert value not in redacted(f"https://host/x?sig={value}")


@UNHURRIED
@given(places, hidden)
def test_options_are_hidden(place: list[str | None], secret: str) -> None:
    """So is every text in options, however deep it lies, in a map or a list."""
    forget()
    options: Any = secret
    for name in reversed(place):
        options = [options] if name is None else {name: options}
    keep_secret("s3://bucket", {"client_kwargs": options})
    check_hidden(secret)


@UNHURRIED
@given(in_urls, st.sampled_from(["http://", ""]), st.sampled_from(["endpoint_url", "host", "proxies", "key"]))
def test_credentials_in_an_endpoint_are_hidden(secret: str, protocol: str, name: str) -> None:
    """An option that tells a place is shown, but for a user, a password and a query in it."""
    forget()
    value = quote(secret, safe="")
    keep_secret("s3://bucket", {"client_kwargs": {name: f"{protocol}user:{value}@localhost:9000?sig={value}"}})
    check_hidden(value)
    assert name == "key" or "localhost:9000" in without_secrets("Could not connect to localhost:9000")


@UNHURRIED
@given(hidden, st.lists(st.tuples(st.sampled_from(["cause", "context"]), st.booleans()), max_size=5), st.booleans())
def test_causes_are_hidden(secret: str, links: list[tuple[str, bool]], ring: bool) -> None:
    """No exception that one of ours came from shows a secret: in a traceback, its words, its attributes or notes."""
    forget()
    keep_secret("s3://bucket", {"secret": secret})
    first: MegacacheError = UnavailableError("it failed", hint="try again")
    last: BaseException = first
    for link, ours in links:
        error = UnavailableError("below") if ours else OSError(5, f"told {secret}", secret)
        error.add_note("" if ours else secret)
        setattr(last, f"__{link}__", error)
        last = error
    if ring:
        last.__context__ = first
    assert showable(first) is first
    seen: list[BaseException] = []
    found: BaseException | None = first
    while found is not None and found not in seen:
        seen.append(found)
        assert found.__context__ is None
        for told in (str(found), repr(found), repr(vars(found)), *traceback.format_exception(found)):
            assert secret not in told
            assert json.dumps(secret)[1:-1] not in told
        found = found.__cause__
    assert len(seen) == len(links) + 1


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("Authorization: Bearer ya29.abcdef", "Authorization: Bearer ***"),
        ("{'Authorization': 'Basic dTpwYXNz'}", "{'Authorization': 'Basic ***'}"),
        ("X-Amz-Security-Token=FwoGZXIvYXdzEBY&x=1", "X-Amz-Security-Token=***&x=1"),
        ("AccountName=me;AccountKey=abcd1234==;x", "AccountName=me;AccountKey=***;x"),
        ('{"access_token": "ya29.abc", "x": 1}', '{"access_token": "***", "x": 1}'),
        ("Invalid endpoint: me:password@localhost:9000", "Invalid endpoint: localhost:9000"),
        (
            "Max retries exceeded with url: /tokeninfo?access_token=ya29.abc",
            "Max retries exceeded with url: /tokeninfo",
        ),
    ],
)
def test_what_looks_like_a_credential_is_hidden(text: str, shown: str) -> None:
    """A client may find credentials by itself: what stands where they stand is hidden, too."""
    assert without_secrets(text) == shown


@pytest.mark.parametrize(
    "text",
    [
        "An error occurred (SignatureDoesNotMatch) when calling the PutObject operation: The request signature differs",
        "Unable to locate credentials",
        "Cannot connect to host 127.0.0.1:9000 ssl:default [Connect call failed ('127.0.0.1', 9000)]",
        "[Errno 2] No such file or directory: '/home/me/a@b/bundles'",
        "latest is not a token of the model, and the key is none",
    ],
)
def test_what_is_not_secret_stays(text: str) -> None:
    """Short secrets are hidden where they stand alone, long ones anywhere; the rest of a text is as it was."""
    keep_secret("s3://me:test@bucket", {"key": "bund", "secret": "s3cr3t-of-mine", "token": "anon", "anon": False})
    assert without_secrets(text) == text
    assert without_secrets(f"{text} (test, s3cr3t-of-mine)") == f"{text} (***, ***)"


def test_the_newest_are_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials that are renewed for ever take no more memory for it."""
    monkeypatch.setattr(secrets, "_MOST", 10)
    for number in range(100):
        keep_secret("s3://bucket", {"token": f"secret-{number}"})
    assert len(secrets._known) == 10
    assert without_secrets("secret-99 secret-1") == "*** secret-1"
