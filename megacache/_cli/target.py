"""A file that a command writes for its user."""

from pathlib import Path

from megacache._runtime import write_whole
from megacache._store import without_secrets
from megacache.errors import SettingsError


def check_folder(file: str) -> None:
    """Raise `SettingsError` if a file cannot be written because its folder is not there."""
    if not Path(file).absolute().parent.is_dir():
        message = without_secrets(f"{file} cannot be written")  # a URL, perhaps
        raise SettingsError(message, hint="its folder does not exist")


def write_file(file: str, data: bytes) -> None:
    """Write a file whole; one of that name is replaced."""
    try:
        write_whole(Path(file), data)
    except OSError as error:
        message = without_secrets(f"{file} cannot be written: {error}")
        raise SettingsError(message, hint="choose another file") from error
