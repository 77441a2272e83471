"""What a child does with a synthetic cache: warm and publish by megacache, and the bare calls they stand on."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.benchmark.resident import growth

if TYPE_CHECKING:
    from fsspec.spec import AbstractFileSystem

IN_FLIGHT = 16
CONNECTIONS = 64
_TIMEOUT = 300.0


def warm(*, url: str, storage_options: Mapping[str, Any], expected: str) -> dict[str, float]:
    """Warm from a store, and tell the seconds of each stage and the growth of memory."""
    _ready()
    import megacache

    with growth() as grown:
        result = megacache.warm(url, storage_options=storage_options, timeout=_TIMEOUT, strict=True)
    return {**_told(result, expected), **grown.values()}


def publish(
    *, url: str, storage_options: Mapping[str, Any], corpus: str, times: int, expected: str
) -> dict[str, float]:
    """Publish a corpus as if it had been compiled here, several times over; tell of the last."""
    _ready()
    import megacache

    _record(corpus)
    for _ in range(times):
        with growth() as grown:
            result = megacache.publish(url, storage_options=storage_options, timeout=_TIMEOUT, strict=True)
    return {**_told(result, expected), **grown.values()}


def load(*, blob: str) -> dict[str, float]:
    """Read a blob and let torch load it, as one does without megacache."""
    torch = _ready()
    clock = _Clock()
    with growth() as grown:
        with clock.stage("read"):
            data = Path(blob).read_bytes()
        with clock.stage("load"):
            loaded = torch.compiler.load_cache_artifacts(data)
    if loaded is None:
        raise RuntimeError("torch refused its own blob")
    del data
    return {**clock.seconds, **grown.values()}


def save(*, corpus: str, blob: str | None) -> dict[str, float]:
    """Let torch save a corpus into one blob, and keep that in a file if one is named."""
    torch = _ready()
    _record(corpus)
    clock = _Clock()
    with growth() as grown, clock.stage("save"):
        saved = torch.compiler.save_cache_artifacts()
    if blob is not None:
        Path(blob).write_bytes(saved[0])
    del saved
    return {**clock.seconds, **grown.values()}


def download(*, url: str, storage_options: Mapping[str, Any], keys: Sequence[str]) -> dict[str, float]:
    """Read objects with nothing in between."""
    _ready()
    clock = _Clock()
    with clock.stage("open"):
        fs, root = _open(url, storage_options)
    with clock.stage("transfer"):
        if fs is None:
            moved = sum(len(Path(root, key).read_bytes()) for key in keys)
        else:
            paths = [f"{root}/{key}" for key in keys]
            # One stream an object is one request; s3fs would ask for the size first.
            moved = sum(map(len, fs.cat(paths, batch_size=IN_FLIGHT, max_concurrency=1).values()))
    return {**clock.seconds, "bytes": moved}


def upload(*, url: str, storage_options: Mapping[str, Any], source: str, keys: Sequence[str]) -> dict[str, float]:
    """Write objects with nothing in between; on a local disk as durably as megacache does."""
    _ready()
    objects = {key: Path(source, key).read_bytes() for key in keys}
    clock = _Clock()
    with clock.stage("open"):
        fs, root = _open(url, storage_options)
    with clock.stage("transfer"):
        if fs is None:
            for key, data in objects.items():
                _write(Path(root, key), data)
        else:
            fs.pipe({f"{root}/{key}": data for key, data in objects.items()}, batch_size=IN_FLIGHT)
    return {**clock.seconds, "bytes": sum(map(len, objects.values()))}


TASKS: Mapping[str, Callable[..., Mapping[str, float]]] = {
    task.__name__: task for task in (warm, publish, load, save, download, upload)
}


class _Clock:
    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        started = time.perf_counter()
        yield
        self.seconds[name] = time.perf_counter() - started


def _ready() -> Any:
    """Import what any process that compiles has imported, so that no measurement pays for it."""
    import torch
    import torch._inductor.compile_fx
    from torch.compiler._cache import CacheArtifactManager

    CacheArtifactManager._ensure_cache_artifacts_registered()
    return torch


def _record(corpus: str) -> None:
    from torch.compiler._cache import CacheArtifactManager

    for file in sorted(Path(corpus).iterdir()):
        # Of the kinds that torch records, this is the one that its loader writes without unpickling it.
        CacheArtifactManager.record_artifact("aot_autograd", file.name, file.read_bytes())


def _told(result: Any, expected: str) -> dict[str, float]:
    if result.status != expected:
        raise RuntimeError(f"{result.status} instead of {expected}: {result}")
    return {**result.seconds, "stored": result.bytes_stored, "raw": result.bytes_raw}


def _open(url: str, storage_options: Mapping[str, Any]) -> "tuple[AbstractFileSystem | None, str]":
    """Find the filesystem of a URL; None means plain files."""
    if url.startswith("file://"):
        return None, url.removeprefix("file://")
    from fsspec.core import url_to_fs

    fs, root = url_to_fs(url, config_kwargs={"max_pool_connections": CONNECTIONS}, **storage_options)
    return fs, root


def _write(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("xb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
