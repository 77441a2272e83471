"""Every environment variable that megacache reads, and the care it takes of the others."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Self

from megacache.errors import SettingsError

_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"", "0", "false", "no", "off"}
_MAX_TEXT = 1_000
_COMPILER_PREFIXES = ("TORCHINDUCTOR_", "TORCH_COMPILE_", "TRITON_")
_CACHE_FOLDERS = ("TORCHINDUCTOR_CACHE_DIR", "TRITON_CACHE_DIR")


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says."""

    url: str | None
    """`MEGACACHE_URL`: the cache to use when a call names none."""
    disabled: bool
    """`MEGACACHE_DISABLE`: do nothing, report `disabled`."""
    read_only: bool
    """`MEGACACHE_READ_ONLY`: warm, but publish nothing."""

    @classmethod
    def read(cls) -> Self:
        """Read the environment; raise `SettingsError` for a value that means nothing."""
        return cls(
            url=os.environ.get("MEGACACHE_URL") or None,
            disabled=_switch("MEGACACHE_DISABLE"),
            read_only=_switch("MEGACACHE_READ_ONLY"),
        )

    def url_or_default(self, url: str | os.PathLike[str] | None) -> str:
        """Choose the URL: the argument, else `MEGACACHE_URL`, else the folder under the user's cache folder."""
        try:
            given = os.fspath(url or "")
        except TypeError as error:
            msg = f"a URL cannot be of type {type(url).__name__}"
            raise SettingsError(msg, hint="give a string or a path") from error
        chosen = given or self.url or default_url()
        stripped = chosen.rstrip("/")
        return chosen if stripped.endswith(":") else stripped


def default_url() -> str:
    """Name the store in the user's cache folder, such as `~/.cache/megacache/store` on Linux."""
    from platformdirs import user_cache_path

    try:
        folder = user_cache_path("megacache", appauthor=False)
    except RuntimeError as error:
        msg = f"there is no home folder for the default store: {error}"
        raise SettingsError(msg, hint="give a URL, or set MEGACACHE_URL") from error
    return f"file://{folder}/store"


def variables_for_child(**changes: str) -> dict[str, str]:
    """Give the variables of this process to a child, with some set anew."""
    return {**os.environ, **changes}


def requested_cpu_capability() -> str:
    """Tell the value of `ATEN_CPU_CAPABILITY`, which Inductor reads anew at each compilation; empty if unset."""
    return os.environ.get("ATEN_CPU_CAPABILITY", "").lower()


def compiler_variables() -> Mapping[str, str]:
    """Give the variables that configure PyTorch's compiler, without those that hold a path or are no short text."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name.startswith(_COMPILER_PREFIXES) and not {"/", os.sep} & set(value) and is_short_text(value)
    }


def is_short_text(value: object) -> bool:
    """Tell whether a value is text that can be written as UTF-8, of at most 1,000 characters."""
    if not isinstance(value, str) or len(value) > _MAX_TEXT:
        return False
    return value.isascii() or value == value.encode(errors="replace").decode()


@contextmanager
def cache_folders_unchanged() -> Iterator[None]:
    """Put back the variables that PyTorch pins to absolute folders as soon as its compiler is imported."""
    before = {name: os.environ.get(name) for name in _CACHE_FOLDERS}
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _switch(name: str) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    msg = f"{name}={value!r} is neither on nor off"
    raise SettingsError(msg, hint="use 1 or 0")
