"""The names of `fal.toolkit` that share compiled caches, as of fal 1.83.

from megacache.compat.fal import synchronized_inductor_cache   # was: from fal.toolkit import ...

A key such as "mymodel/v1" names a cache below `MEGACACHE_URL`, or below `/data/inductor-caches` if that is unset. As
there, nothing raises because of a store. What changes: the GPU is part of a cache's own layout and not of the key;
PyTorch's cache folder stays where it is, and `TORCHINDUCTOR_CACHE_DIR` is not set; instead of printing, the outcome of
each call is logged on `logging.getLogger("megacache")`. The zip archives that fal has written are not read.
"""

import hashlib
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from megacache import Cache
from megacache._settings import Settings
from megacache._store import below
from megacache.errors import SettingsError

__all__ = ["get_gpu_type", "load_inductor_cache", "sync_inductor_cache", "synchronized_inductor_cache"]

GLOBAL_INDUCTOR_CACHES_DIR = Path("/data/inductor-caches")
"""Where caches lie without `MEGACACHE_URL`; a program that sets it is obeyed, as by fal."""

_GPU_SECONDS = 30.0


@contextmanager
def synchronized_inductor_cache(cache_key: str) -> Iterator[None]:
    """Load a cache, run the block, and publish what it compiled.

    As with fal, what was compiled is published even if the block raises; its exception then goes on. (The block of
    `megacache.synchronized` publishes nothing in that case, unless it is asked to.)
    """
    unpacked_dir_hash = load_inductor_cache(cache_key)
    try:
        yield
    finally:
        sync_inductor_cache(cache_key, unpacked_dir_hash)


def load_inductor_cache(cache_key: str) -> str:
    """Warm from the cache of a key; call it before the first compilation.

    Returns 64 hex digits that stand for what was loaded, or "" if nothing was.
    """
    warmed = _cache(cache_key).warm()
    return hashlib.sha256(" ".join(sorted(warmed.bundles)).encode()).hexdigest() if warmed else ""


def sync_inductor_cache(cache_key: str, unpacked_dir_hash: str) -> None:
    """Publish what this process compiled and the cache of a key does not hold; call it after the model has run.

    What `load_inductor_cache` returned is accepted and not needed: megacache knows what this process has loaded.
    """
    del unpacked_dir_hash
    _cache(cache_key).publish()


def get_gpu_type() -> str:
    """Name the first GPU that `nvidia-smi` lists by the word after "NVIDIA", such as "H100", or else "UNKNOWN"."""
    command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
    try:
        told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=_GPU_SECONDS).stdout
    except (OSError, ValueError, subprocess.SubprocessError):
        return "UNKNOWN"
    found = re.search(r"NVIDIA ([A-Za-z0-9]+)", told)
    return found[1] if found else "UNKNOWN"


def _cache(cache_key: str) -> Cache:
    return Cache([below(place, cache_key.strip("/")) for place in _bases()])


def _bases() -> tuple[str, ...]:
    try:
        settings = Settings.read()
    except SettingsError:  # the verb that follows reads the same variables, and reports it
        settings = Settings()
    return settings.places(None) if settings.url else (f"file://{GLOBAL_INDUCTOR_CACHES_DIR}",)
