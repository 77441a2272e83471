"""Every exception that megacache raises.

* `MegacacheError`
    * `SettingsError`: a URL, an option or a variable that cannot be used.
    * `StoreError`: the store did not do what it was asked.
        * `UnavailableError`: it did not answer, or answered with a fault of its own.
            * `DeadlineError`: it did not answer in time.
        * `AccessError`: it refused the credentials.
        * `MissingError`: an object, or the whole bucket, is not there.
    * `BundleError`: what the store holds cannot be used.
        * `FormatError`: it is not what it should be; says where.
            * `UnsupportedFormatError`: it was written by a newer megacache.
        * `IntegrityError`: its bytes are not the ones that were published.
        * `UntrustedError`: it may be harmful, and was not opened further.
    * `CompilerError`: PyTorch refused, or failed.
"""

from functools import partial
from typing import Self


class MegacacheError(Exception):
    """Root of every exception that megacache raises."""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint
        """What to do next, or an empty string."""

    def __str__(self) -> str:
        message = super().__str__()
        return f"{message}; {self.hint}" if self.hint else message


class SettingsError(MegacacheError):
    """A URL, an option or an environment variable cannot be used."""


class StoreError(MegacacheError):
    """The store did not do what it was asked."""


class UnavailableError(StoreError):
    """The store did not answer, or answered with a fault of its own."""


class DeadlineError(UnavailableError):
    """The time allowed was over before the work was done."""


class AccessError(StoreError):
    """The store refused the credentials, or what they were used for."""


class MissingError(StoreError):
    """An object, or the bucket that should hold it, is not there."""


class BundleError(MegacacheError):
    """What the store holds cannot be used."""


class FormatError(BundleError):
    """A document does not have the form it should have."""

    def __init__(self, message: str, *, path: str = "", hint: str = "") -> None:
        super().__init__(f"{path}: {message}" if path else message, hint=hint)
        self.path = path
        """Where in the document, such as `chunks[0].digest`."""


class UnsupportedFormatError(FormatError):
    """A document has a major version that this megacache does not know."""


class IntegrityError(BundleError):
    """Bytes are not the ones that were published."""

    def __init__(self, what: str, *, expected: object, actual: object) -> None:
        super().__init__(f"{what} is damaged: expected {expected}, got {actual}")
        self.what = what
        """The thing whose bytes they are."""
        self.expected = expected
        """What the manifest declares."""
        self.actual = actual
        """What was found."""

    # Python makes copies and pickles of an exception from its message, which is not enough here.
    def __reduce__(self) -> tuple[partial[Self], tuple[()]]:
        return partial(type(self), self.what, expected=self.expected, actual=self.actual), ()


class UntrustedError(BundleError):
    """A bundle lacks a required signature, lies where it was not signed for, or names what PyTorch never writes."""


class CompilerError(MegacacheError):
    """PyTorch refused what it was given, or failed."""
