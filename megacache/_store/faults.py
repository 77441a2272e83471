"""Turn what fsspec and the clients behind it raise into megacache's own exceptions."""

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

from megacache._store.secrets import without_secrets
from megacache.errors import AccessError, MegacacheError, MissingError, SettingsError, UnavailableError

_EXTRAS = {"s3fs": "s3", "gcsfs": "gcs", "adlfs": "azure"}
# By name, for the clients that define them need not be installed.
_ACCESS_ERRORS = frozenset(
    {
        "CredentialRetrievalError",
        "DefaultCredentialsError",
        "NoCredentialsError",
        "PartialCredentialsError",
        "ProfileNotFound",
        "RefreshError",
        "SSOTokenLoadError",
        "TokenRetrievalError",
        "UnauthorizedSSOTokenError",
    }
)
# What aiohttp and botocore raise for an answer that ends too early.
_BROKEN_BODIES = frozenset({"ClientPayloadError", "IncompleteReadError", "ResponseStreamingError"})
_REFUSED = frozenset({401, 403})
# Alibaba's OSS and older gateways answer so to `If-None-Match`.
_CONDITION_REFUSED = frozenset({400, 501})
_UNABLE = frozenset({405, 501})
_BUSY = frozenset({429, 503})
_WRONG_TIME = "RequestTimeTooSkewed"
_NO_BUCKET = re.compile(r"NoSuchBucket|bucket does not exist|(?:^|/)b/[^/]+/o$|ContainerNotFound|No such container")
"""How S3, GCS (by the path of what it was asked for) and Azure say it."""
_MAX_MESSAGE = 300
_CREATE_IT = "create the bucket or container, or correct the URL"
NOT_FOUND = 404

MISUSE = (ValueError, TypeError, AttributeError)


@contextmanager
def faults(url: str, doing: str, *, misuse: tuple[type[Exception], ...] = ()) -> Iterator[None]:
    """Let no foreign exception out; the original stays as the cause. `misuse` is what a wrong URL or option raises."""
    try:
        yield
    except MegacacheError:
        raise
    except misuse as error:
        hint = "use a URL that fsspec knows, such as s3://, gs:// or file://"
        raise SettingsError(_told(error, url, doing), hint=hint) from error
    except Exception as error:
        raise _translated(error, url, doing) from error


def http_status(error: BaseException) -> int | None:
    """Find the HTTP status in an exception or in what caused it."""
    for cause in _causes(error):
        response = getattr(cause, "response", None)
        if isinstance(response, dict):  # as botocore keeps it
            status = response.get("ResponseMetadata", {}).get("HTTPStatusCode")
        else:
            # aiohttp has `status`, and a `code` that only warns; requests, httpx and Azure have `status_code`.
            told = cause if response is None else response
            status = getattr(told, "status", getattr(told, "status_code", vars(cause).get("code")))
        if isinstance(status, int):
            return status
    return None


def broke_off(error: BaseException) -> bool:
    """Tell whether an answer that had begun ended too early."""
    return any(type(cause).__name__ in _BROKEN_BODIES for cause in _causes(error))


def is_busy(error: BaseException) -> bool:
    """Tell whether a store says that it is asked too often, or has too much to do for the moment."""
    return http_status(error) in _BUSY


def refuses_conditions(error: BaseException) -> bool:
    """Tell whether a store may have refused to create an object because of the condition that it must not exist."""
    return isinstance(error, NotImplementedError) or http_status(error) in _CONDITION_REFUSED


def _translated(error: Exception, url: str, doing: str) -> MegacacheError:
    message = _told(error, url, doing)
    # An answer may fit several of these: a wrong clock, for example, also comes as a refusal.
    if isinstance(error, ImportError):
        return SettingsError(message, hint=_install_hint(error))
    if isinstance(error, FileNotFoundError) or http_status(error) == NOT_FOUND:
        return MissingError(message, hint=_CREATE_IT if _no_bucket(error) else "")
    if _error_code(error) == _WRONG_TIME:
        return AccessError(message, hint="set the clock of this machine")
    if isinstance(error, NotImplementedError) or http_status(error) in _UNABLE:
        return AccessError(message, hint="this kind of store cannot do that; use another URL")
    if _is_refusal(error):
        return AccessError(message, hint="check the credentials and what they may do")
    return UnavailableError(message, hint="check the store and the network, then try again")


def _told(error: Exception, url: str, doing: str) -> str:
    return f"{url}: {doing} failed: {_message(error)}"


def _message(error: Exception) -> str:
    # s3fs leaves the status and the code of S3's answer out of its message.
    code = _error_code(error)
    answer = f" (HTTP {http_status(error)} {code})" if code else ""
    return without_secrets(f"{type(error).__name__} {error}").strip().replace("\n", " ")[:_MAX_MESSAGE] + answer


def _error_code(error: Exception) -> str:
    # Only botocore's errors hold a dictionary.
    answers = (getattr(cause, "response", None) for cause in _causes(error))
    return next((str(answer.get("Error", {}).get("Code", "")) for answer in answers if isinstance(answer, dict)), "")


def _install_hint(error: ImportError) -> str:
    for module, extra in _EXTRAS.items():
        if module in str(error):
            return f'pip install "megacache[{extra}]"'
    return "install the fsspec implementation of this protocol"


def _no_bucket(error: Exception) -> bool:
    return any(_NO_BUCKET.search(str(cause)) for cause in _causes(error))


def _is_refusal(error: Exception) -> bool:
    if isinstance(error, PermissionError) or getattr(error, "errno", None) == errno.EROFS:
        return True
    # gcsfs raises a plain `OSError` for a 403.
    if http_status(error) in _REFUSED or str(error).startswith("Forbidden"):
        return True
    return any(type(cause).__name__ in _ACCESS_ERRORS for cause in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    # A library may have chained its exceptions in a circle.
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        yield error
        seen.add(id(error))
        error = error.__cause__ or error.__context__
