"""Whatever fsspec and its clients raise becomes one of megacache's errors, without a secret in it."""

import errno
import sys
from itertools import islice

import pytest
from aiohttp import ClientResponseError
from botocore.exceptions import (  # type: ignore[import-untyped]
    ClientError,
    EndpointConnectionError,
    NoCredentialsError,
    ReadTimeoutError,
)
from fsspec.registry import _registry
from gcsfs.retry import HttpError, validate_response
from google.auth.exceptions import DefaultCredentialsError, RefreshError
from s3fs.errors import translate_boto_error

from megacache._runtime import Deadline
from megacache._store import Store
from megacache._store.faults import _causes, faults, http_status
from megacache.errors import (
    AccessError,
    IntegrityError,
    MegacacheError,
    MissingError,
    SettingsError,
    UnavailableError,
)

URL = "s3://cache/model"


def aws(status: int, code: str) -> ClientError:
    """Make what botocore raises for an HTTP status."""
    told = {"Error": {"Code": code, "Message": f"told {code}"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(told, "GetObject")


def gcs(status: int) -> Exception:
    """Catch what gcsfs raises for an HTTP status."""
    try:
        validate_response(status, b'{"error": {"message": "no"}}', "cache/model")
    except Exception as error:  # noqa: BLE001 - the point is what it is
        return error
    raise AssertionError


def translated(error: BaseException, url: str = URL, doing: str = "reading x") -> MegacacheError:
    """Give what comes out for what went in."""
    with pytest.raises(MegacacheError) as caught, faults(url, doing):
        raise error
    return caught.value


TABLE: list[tuple[BaseException, type[MegacacheError]]] = [
    (aws(403, "AccessDenied"), AccessError),
    (aws(401, "Unauthorized"), AccessError),
    (aws(412, "PreconditionFailed"), UnavailableError),
    (aws(503, "SlowDown"), UnavailableError),
    (translate_boto_error(aws(403, "AccessDenied")), AccessError),
    (translate_boto_error(aws(403, "UnheardOf")), AccessError),
    (translate_boto_error(aws(400, "ExpiredToken")), AccessError),
    (translate_boto_error(aws(404, "NoSuchKey")), MissingError),
    (translate_boto_error(aws(404, "NoSuchBucket")), MissingError),
    (translate_boto_error(aws(503, "SlowDown")), UnavailableError),
    (NoCredentialsError(), AccessError),
    (ReadTimeoutError(endpoint_url="https://s3"), UnavailableError),
    (EndpointConnectionError(endpoint_url="https://s3"), UnavailableError),
    (gcs(401), AccessError),
    (gcs(403), AccessError),
    (gcs(404), MissingError),
    (gcs(503), UnavailableError),
    (HttpError({"code": 403, "message": "no"}), AccessError),
    (HttpError(None), UnavailableError),
    (DefaultCredentialsError(), AccessError),  # type: ignore[no-untyped-call]
    (RefreshError(), AccessError),  # type: ignore[no-untyped-call]
    (FileNotFoundError("cache/model/x"), MissingError),
    (PermissionError(errno.EACCES, "no"), AccessError),
    (ImportError("Install s3fs to access S3"), SettingsError),
    (ImportError("Please install boxfs to access BoxFileSystem"), SettingsError),
    (TimeoutError(), UnavailableError),
    (RuntimeError("what is this"), UnavailableError),
]


@pytest.mark.parametrize(("error", "expected"), TABLE, ids=lambda value: getattr(value, "__name__", repr(value)[:50]))
def test_each_exception_has_its_translation(error: BaseException, expected: type[MegacacheError]) -> None:
    """Real exceptions of the clients become the class that says what to do, and stay as its cause."""
    found = translated(error)
    assert type(found) is expected
    assert found.__cause__ is error
    assert str(found).startswith(f"{URL}: reading x failed: {type(error).__name__}")
    assert found.hint or expected is MissingError


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, GeneratorExit])
def test_what_ends_the_program_passes(error: type[BaseException]) -> None:
    """An interruption is no fault of the store."""
    with pytest.raises(error), faults(URL, "reading x"):
        raise error


def test_own_errors_pass() -> None:
    """An error of megacache is not wrapped again."""
    error = IntegrityError("chunk", expected=1, actual=2)
    assert translated(error) is error


@pytest.mark.parametrize(
    ("protocol", "module", "extra"), [("s3", "s3fs", "s3"), ("gs", "gcsfs", "gcs"), ("abfs", "adlfs", "azure")]
)
def test_missing_client_names_the_extra(
    monkeypatch: pytest.MonkeyPatch, protocol: str, module: str, extra: str
) -> None:
    """If the client for a URL is not installed, the error says which extra brings it."""
    monkeypatch.delitem(_registry, protocol, raising=False)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(SettingsError) as caught:
        Store.open(f"{protocol}://cache", storage_options=None, deadline=Deadline.after(60))
    assert caught.value.hint == f'pip install "megacache[{extra}]"'


def test_unknown_protocol_is_a_setting() -> None:
    """A URL that fsspec does not know is the caller's to correct."""
    with pytest.raises(SettingsError, match="Protocol not known") as caught:
        Store.open("carrier-pigeon://coop", storage_options=None, deadline=Deadline.after(60))
    assert "s3://" in caught.value.hint


def test_value_error_is_a_setting_only_when_opening() -> None:
    """A `ValueError` is about the URL or its options while a store is opened, and not later."""
    told = "opening it failed: ValueError no"
    with pytest.raises(SettingsError, match=told), faults(URL, "opening it", misuse=(ValueError,)):
        raise ValueError("no")
    assert type(translated(ValueError("no"))) is UnavailableError


def test_missing_bucket_is_told_from_a_missing_object() -> None:
    """Advice to create the bucket is given only where it is the bucket that is missing."""
    assert "bucket" in translated(translate_boto_error(aws(404, "NoSuchBucket"))).hint
    assert "bucket" not in translated(FileNotFoundError("cache/model/x")).hint
    assert "bucket" not in translated(FileNotFoundError("my-bucket/model/x"), url="s3://my-bucket/model").hint


def test_answer_of_s3_is_named() -> None:
    """Status and code of S3's answer are told, of which s3fs leaves only a number of its own or nothing."""
    assert "(HTTP 503 SlowDown)" in str(translated(translate_boto_error(aws(503, "SlowDown"))))
    assert "(HTTP 403 AccessDenied)" in str(translated(translate_boto_error(aws(403, "AccessDenied"))))
    assert "HTTP" not in str(translated(OSError(errno.EIO, "no")))


def test_wrong_clock_is_named() -> None:
    """A request that was refused for its date needs another clock, not other credentials."""
    found = translated(translate_boto_error(aws(403, "RequestTimeTooSkewed")))
    assert type(found) is AccessError
    assert found.hint == "set the clock of this machine"


def test_long_answer_is_cut() -> None:
    """A page of HTML in an answer does not fill the log, nor break its line."""
    told = str(translated(OSError("<html>\n" * 1000)))
    assert len(told) < 600
    assert "\n" not in told


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (aws(404, "NoSuchKey"), 404),
        (translate_boto_error(aws(409, "OperationAborted")), 409),
        (HttpError({"code": 412, "message": "no"}), 412),
        (gcs(403), None),
        (ClientResponseError(None, (), status=401), 401),  # type: ignore[arg-type]
        (OSError(errno.EIO, "no"), None),
        (RuntimeError(), None),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.filterwarnings("error")
def test_http_status_is_found(error: BaseException, status: int | None) -> None:
    """The status is found in the exception or in what caused it, where a client tells it."""
    assert http_status(error) == status


def test_ring_of_causes_ends() -> None:
    """Two exceptions that name each other as cause are looked at once each, not for ever."""
    one, other = OSError("one"), OSError("other")
    one.__cause__, other.__cause__ = other, one
    assert list(islice(_causes(one), 10)) == [one, other]


def test_secret_is_not_told_by_the_client() -> None:
    """A client that repeats the URL in its own message does not bring a secret into ours."""
    error = FileNotFoundError("https://me:pass@host/x?sig=secret")
    told = str(translated(error, url="https://host/x"))
    assert "secret" not in told
    assert "pass" not in told
