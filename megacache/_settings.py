"""Every environment variable that megacache reads, and what it does with those of other programs."""

import getpass
import inspect
import math
import os
import re
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import Any, Self

from megacache._runtime import is_short_text
from megacache._store import redacted, split_places, trimmed
from megacache.errors import SettingsError

Url = str | os.PathLike[str] | Sequence[str | os.PathLike[str]]
"""A cache: one place, or several in order, the nearest first."""
_TRUE = {"1", "true", "yes", "on"}
_FALSE = {"", "0", "false", "no", "off"}
_WARM_TIMEOUT, _PUBLISH_AFTER, _EXIT_TIMEOUT = 60.0, 30.0, 10.0
_NODE_MAX_BYTES = 10 << 30
_PREFIX = "MEGACACHE"
_LEVELS = ("debug", "info", "warning", "error")
# From `torch._dynamo.debug_utils.generate_env_vars_string`.
_WRITTEN_BY_PYTORCH = ("TORCH", "DYNAMO", "INDUCTOR", "TRITON")
_SECRET = re.compile(r"API_?KEY|SECRET|TOKEN|PASSW|CREDENTIAL", re.IGNORECASE)
_CACHE_FOLDER = "TORCHINDUCTOR_CACHE_DIR"
# PyTorch adds the user's name.
_DEFAULT_CACHE_FOLDER = "torchinductor_"
_DOCUMENTED = re.compile(r'^    (\w+): .*\n    """`(\w+)`: ([^"]*)\.\s*"""', re.MULTILINE)
"""A field, the variable that it comes from, and what that is for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What the environment says."""

    url: str | None = field(default=None, repr=False)
    """`MEGACACHE_URL`: the cache of calls that name none; without it, `megacache/store` in the user's cache folder.

    Nearer places that hold copies may stand before it, with spaces between them.
    """
    disabled: bool = False
    """`MEGACACHE_DISABLE`: 1 to do nothing, and report `disabled`."""
    read_only: bool = False
    """`MEGACACHE_READ_ONLY`: 1 to warm but never publish; commands that write to a store refuse, except `pull`."""
    trusted_keys: tuple[str, ...] | None = None
    """`MEGACACHE_TRUSTED_KEYS`: files of public keys, with `:` between them; without it, every writer is trusted.

    `ls`, `inspect`, `rm` and `sign` read unsigned manifests all the same.
    """
    trust_threshold: int | None = None
    """`MEGACACHE_TRUST_THRESHOLD`: how many of them must have signed; without it, one."""
    signing_key: str | None = field(default=None, repr=False)
    """`MEGACACHE_SIGNING_KEY`: what to sign publications with: a private key's file, or its URI in a key service."""
    node_max_bytes: int = _NODE_MAX_BYTES
    """`MEGACACHE_NODE_MAX_BYTES`: bytes of chunks that the user's cache folder keeps for this node; 0 keeps none."""
    folders: Mapping[str, str] = field(default_factory=dict)
    """`MEGACACHE_FOLDERS`: caches of other compilers that travel, too: `NAME` or `NAME=PATH`, with `:` between them."""

    @classmethod
    def read(cls) -> Self:
        """Read the environment; raise `SettingsError` for a value that means nothing."""
        return cls(
            url=os.environ.get("MEGACACHE_URL") or None,
            disabled=_switch("MEGACACHE_DISABLE"),
            read_only=_switch("MEGACACHE_READ_ONLY"),
            trusted_keys=_files("MEGACACHE_TRUSTED_KEYS"),
            trust_threshold=_count("MEGACACHE_TRUST_THRESHOLD"),
            signing_key=os.environ.get("MEGACACHE_SIGNING_KEY") or None,
            folders=folders_of(filter(None, os.environ.get("MEGACACHE_FOLDERS", "").split(os.pathsep))),
            node_max_bytes=_NODE_MAX_BYTES if (most := _count("MEGACACHE_NODE_MAX_BYTES")) is None else most,
        )

    def places(self, url: Url | None) -> tuple[str, ...]:
        """Choose the places, the nearest first: the argument, else `MEGACACHE_URL`, else the default folder.

        A text may name several; a path, and each of a sequence, is one.
        """
        try:
            given = _given(url)
        except TypeError as error:
            msg = f"a URL cannot be of type {type(url).__name__}"
            raise SettingsError(msg, hint="give a string, a path, or a sequence of them") from error
        found = given or split_places(self.url or "") or (default_url(),)
        return tuple(dict.fromkeys(map(trimmed, found)))


@dataclass(frozen=True, slots=True, kw_only=True)
class AutostartSettings:
    """Settings of processes that start warm without a line of code."""

    warm_timeout: float = _WARM_TIMEOUT
    """`MEGACACHE_WARM_TIMEOUT`: seconds that the first compilation may wait for the store."""
    wait: float = 0.0
    """`MEGACACHE_WAIT`: seconds that the first compilation may wait for another worker; with 0, it waits for none."""
    publish_after: float = _PUBLISH_AFTER
    """`MEGACACHE_PUBLISH_AFTER`: seconds without a compilation after which what was compiled is published."""
    exit_timeout: float = _EXIT_TIMEOUT
    """`MEGACACHE_EXIT_TIMEOUT`: seconds that the end of a process may wait for a publication; 0 for none at the end."""
    publish_when: str | None = None
    """`MEGACACHE_PUBLISH_WHEN`: a file; before it exists, nothing is published but at the end of the process."""
    compact_above: int | None = None
    """`MEGACACHE_COMPACT_ABOVE`: number of bundles above which a publication merges them; without it, never."""
    receipts: str | None = None
    """`MEGACACHE_RECEIPTS`: a folder into which each process puts its receipt, as JSON; `store` leaves it beside the
    cache, for `megacache report`; several with `:` between them."""
    log: str | None = None
    """`MEGACACHE_LOG`: what to log on stderr: debug, info, warning or error; without it, the program decides."""

    @classmethod
    def read(cls) -> Self:
        """Read the environment; raise `SettingsError` for a value that means nothing."""
        return cls(
            warm_timeout=_seconds("MEGACACHE_WARM_TIMEOUT", _WARM_TIMEOUT),
            wait=_seconds("MEGACACHE_WAIT", 0.0),
            publish_after=_seconds("MEGACACHE_PUBLISH_AFTER", _PUBLISH_AFTER),
            exit_timeout=_seconds("MEGACACHE_EXIT_TIMEOUT", _EXIT_TIMEOUT),
            publish_when=os.environ.get("MEGACACHE_PUBLISH_WHEN") or None,
            compact_above=_count("MEGACACHE_COMPACT_ABOVE") or None,
            receipts=os.environ.get("MEGACACHE_RECEIPTS") or None,
            log=_level("MEGACACHE_LOG"),
        )

    def changed(self, **changes: Any) -> Self:
        """Give the same settings with other values."""
        return replace(self, **changes)

    def variables(self) -> Mapping[str, str]:
        """Give the variables from which `read` makes these settings."""
        return {f"{_PREFIX}_{name.upper()}": str(value) for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True, slots=True, kw_only=True)
class Variable:
    """An environment variable that megacache reads."""

    name: str
    """Such as `MEGACACHE_URL`."""
    meaning: str
    """What it is for."""
    default: str | None
    """The value that counts if it is not set; None if the meaning says what happens then."""
    value: str | None
    """What it is set to, without the password and the query of a URL; None if it is not set."""


def documented_variables() -> Iterator[Variable]:
    """Describe every variable, in the words of the docstrings above, which Python keeps in the source only."""
    for settings in (Settings, AutostartSettings):
        defaults = {one.name: one.default for one in fields(settings)}
        for key, name, meaning in _DOCUMENTED.findall(inspect.getsource(settings)):
            value = redacted(os.environ.get(name, "")) or None
            yield Variable(name=name, meaning=" ".join(meaning.split()), default=_text(defaults[key]), value=value)


def child_environment(changes: Mapping[str, str], *, python_path: str = "") -> dict[str, str]:
    """Give the environment of this process with some changes, and a folder that Python looks into first."""
    variables = {**os.environ, **changes}
    if python_path:
        variables["PYTHONPATH"] = os.pathsep.join(filter(None, [python_path, variables.get("PYTHONPATH", "")]))
    return variables


def _given(url: Url | None) -> tuple[str, ...]:
    if isinstance(url, str):
        return split_places(url)
    if isinstance(url, Sequence):
        return tuple(filter(None, (os.fspath(one) for one in url)))
    return tuple(filter(None, [os.fspath(url or "")]))


def default_url() -> str:
    """Name the store in the user's cache folder, such as `~/.cache/megacache/store` on Linux."""
    try:
        return f"file://{_cache_folder()}/store"
    except RuntimeError as error:
        msg = f"there is no home folder for the default store: {error}"
        raise SettingsError(msg, hint="give a URL, or set MEGACACHE_URL") from error


def chunk_folder() -> Path:
    """Name the folder of the chunks that this node keeps, such as `~/.cache/megacache/chunks` on Linux."""
    try:
        return _cache_folder() / "chunks"
    except RuntimeError as error:
        msg = f"there is no home folder for downloaded chunks: {error}"
        raise SettingsError(msg, hint="set HOME or XDG_CACHE_HOME") from error


def _cache_folder() -> Path:
    """Name the folder of this package in the user's cache folder; raise `RuntimeError` where that cannot be told."""
    from platformdirs import user_cache_path

    return user_cache_path("megacache", appauthor=False)


def triton_home() -> Path:
    """Name the folder in which Triton keeps what it compiles where `TRITON_CACHE_DIR` is not set."""
    return Path(os.environ.get("TRITON_HOME") or os.path.expanduser("~"), ".triton", "cache")  # noqa: PTH111 - no error


def folders_of(words: Iterable[str]) -> Mapping[str, str]:
    """Give the paths of folders by their names, from `NAME=PATH`; empty for a `NAME` alone."""
    return {name: path for name, _, path in (word.partition("=") for word in words)}


def others_variable(name: str) -> str:
    """Tell what a variable of another program says; empty if it is not set."""
    return os.environ.get(name, "")


def requested_cpu_capability() -> str:
    """Tell the value of `ATEN_CPU_CAPABILITY`, which Inductor reads anew at each compilation; empty if unset."""
    return os.environ.get("ATEN_CPU_CAPABILITY", "").lower()


def full_collection_threshold(default: int) -> int:
    """Read torch's variable for full garbage collections while it compiles; 0, and what is not a number, is off."""
    value = os.environ.get("TORCH_DYNAMO_GC_GEN2_THRESHOLD_DURING_COMPILE", str(default))
    # `isdigit` is true for some characters that `int` does not read, such as "²".
    return int(value) if value.isascii() and value.isdigit() else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class AnnouncedJob:
    """What a launcher such as torchrun tells a process of its job."""

    size: int = 1
    """How many ranks there are; 1 if nobody has announced any."""
    rank: int | None = None
    """Which of them this process is; None if that is not told."""
    store: tuple[str, int] | None = None
    """Host and port of the store that torchrun keeps for the job; None if it keeps none."""


def announced_job() -> AnnouncedJob:
    """Read what a launcher has announced."""
    size, rank = (os.environ.get(name, "") for name in ("WORLD_SIZE", "RANK"))
    host, port = (os.environ.get(name, "") for name in ("MASTER_ADDR", "MASTER_PORT"))
    # Without torchrun's own store, rank 0 opens that port when it initialises `torch.distributed`, and nobody before.
    kept = os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" and host and port.isdecimal()
    return AnnouncedJob(
        size=int(size) if size.isdecimal() else 1,
        rank=int(rank) if rank.isdecimal() else None,
        store=(host, int(port)) if kept else None,
    )


def plain_variables(names: Collection[str]) -> Mapping[str, str]:
    """Give the variables of these names, without those that hold a path or a long text."""
    return {
        name: value
        for name, value in sorted(os.environ.items())
        if name in names and not {"/", os.sep} & set(value) and is_short_text(value)
    }


def variables_of(prefix: str, names: Collection[str]) -> Mapping[str, str]:
    """Give the variables of another program: those that are set, and begin so or have one of these names."""
    return {name: os.environ[name] for name in sorted(os.environ) if name.startswith(prefix) or name in names}


def is_secret(name: str, value: str) -> bool:
    """Tell whether what is called so seems to be a secret, by its name or as a URL with one in it."""
    return _SECRET.search(name) is not None or redacted(value) != value


def exposed_secrets() -> tuple[str, ...]:
    """Name the variables that PyTorch writes into what it compiles, name and value, and that seem to hold a secret."""
    written = (name for name in sorted(os.environ) if any(word in name for word in _WRITTEN_BY_PYTORCH))
    return tuple(name for name in written if is_secret(name, os.environ[name]))


def find_cache_folder() -> None:
    """Look for the folder in which PyTorch will keep its caches, without PyTorch: a disk that hangs is noticed here."""
    with suppress(KeyError, OSError, ValueError):  # a user without a name; PyTorch says what is wrong with a name
        default = Path(tempfile.gettempdir()) / f"{_DEFAULT_CACHE_FOLDER}{getpass.getuser()}"
        Path(os.environ.get(_CACHE_FOLDER, default)).stat()


@contextmanager
def cache_folder_unpinned() -> Iterator[None]:
    """Put back `TORCHINDUCTOR_CACHE_DIR`, which PyTorch makes absolute, or sets to its default, when it reads it."""
    before = os.environ.get(_CACHE_FOLDER)
    try:
        yield
    finally:
        # Any other value is somebody else's: other threads may set it while they compile.
        now = os.environ.get(_CACHE_FOLDER, "")
        if before is not None and now == os.path.abspath(before):  # noqa: PTH100 - as PyTorch does it
            os.environ[_CACHE_FOLDER] = before
        elif before is None and Path(now).name.startswith(_DEFAULT_CACHE_FOLDER):
            os.environ.pop(_CACHE_FOLDER, None)


def _text(value: object) -> str | None:
    if isinstance(value, float):
        return f"{value:g}"
    return str(int(value)) if isinstance(value, int) else None


def _seconds(name: str, default: float) -> float:
    value = os.environ.get(name, "").strip()
    try:
        seconds = float(value) if value else default
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < math.inf:
        msg = f"{name}={value!r} is not a number of seconds"
        raise SettingsError(msg, hint="use a number such as 30")
    return seconds


def _files(name: str) -> tuple[str, ...] | None:
    # A variable that is set and empty names no key; without it, every writer is trusted.
    value = os.environ.get(name)
    return None if value is None else tuple(filter(None, value.split(os.pathsep)))


def _count(name: str) -> int | None:
    value = os.environ.get(name, "").strip()
    if value.isdecimal() or not value:
        return int(value) if value else None
    msg = f"{name}={value!r} is not a number"
    raise SettingsError(msg, hint="use a whole number")


def _level(name: str) -> str | None:
    value = os.environ.get(name, "").strip().lower()
    if value and value not in _LEVELS:
        msg = f"{name}={value!r} is not a level"
        raise SettingsError(msg, hint=f"use one of {', '.join(_LEVELS)}")
    return value or None


def _switch(name: str) -> bool:
    value = os.environ.get(name, "").strip().lower()
    if value in _TRUE:
        return True
    if value in _FALSE:
        return False
    msg = f"{name}={value!r} is neither on nor off"
    raise SettingsError(msg, hint="use 1 or 0")
