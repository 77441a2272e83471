"""One worker: it warms, has compiled what is missing, serves, and publishes.

All of it is megacache and PyTorch's own loader and recorder, but for the compiler: where a graph is not in PyTorch's
cache folder, the worker sleeps for a part of the time that compiling it took, and hands PyTorch what that had left.
No two compilations leave the same bytes, and neither do those of two workers.
"""

import atexit
import ctypes
import gc
import importlib
import json
import os
import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NoReturn

from examples.fleet.recording import Compilation

_SALT = 16
_SHARED = (
    "torch._inductor.compile_fx",
    "torch._functorch._aot_autograd.autograd_cache",
    "s3fs",
    "zstandard",
    "megacache._api",
)
"""Modules that all workers share with the process from which they are forked."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What a worker is to do."""

    scenario: str
    number: int
    node: int
    url: str
    endpoint: str
    folder: str
    """Its own, which holds PyTorch's cache folder."""
    node_folder: str
    """That of the chunks that its node keeps."""
    models: Sequence[str]
    facts: Mapping[str, str] = field(default_factory=dict)
    """Facts of its environment, in place of this machine's."""
    wait: float = 0.0
    """Seconds for which it waits for another worker."""
    speed: float = 1.0
    """How many times faster than the recorded compilations those of the worker are."""

    def options(self, step: str) -> dict[str, Any]:
        """Give storage options that tell the server who asks."""
        who = f"fleet/{self.scenario}/{self.node}/{self.number}/{step}"
        return {
            "key": "fleet",
            "secret": "fleet-loopback",
            "endpoint_url": self.endpoint,
            "config_kwargs": {"user_agent_extra": who},
        }


def prepare() -> None:
    """Import and read, before any fork, what each process would import and read anew."""
    for name in _SHARED:
        importlib.import_module(name)
    from megacache import _compiler

    _compiler.current_environment()
    _compiler.toolchain()
    gc.freeze()  # or each worker would copy all that is here when it first collects


def work(job: Job, recorded: Mapping[str, Compilation]) -> None:
    """Live a worker's life, and leave an account of it."""
    os.environ |= {
        "TORCHINDUCTOR_CACHE_DIR": f"{job.folder}/inductor",
        "XDG_CACHE_HOME": job.node_folder,
        "MEGACACHE_NODE_MAX_BYTES": str(10 << 30),
    }
    Path(job.folder, "inductor").mkdir(parents=True)
    begun = time.monotonic()
    import megacache

    _pretend(job.facts)
    warmed = megacache.warm(job.url, storage_options=job.options("warm"), wait=job.wait)
    seconds_warm = time.monotonic() - begun
    compiled = [graph for model in job.models for graph in _compile(recorded[model], job)]
    ready = time.monotonic() - begun
    published = megacache.publish(job.url, storage_options=job.options("publish"))
    again = megacache.publish(job.url, storage_options=job.options("again"))
    account = {
        "number": job.number,
        "node": job.node,
        "warm": str(warmed.status),
        "reason": warmed.reason,
        "warnings": list(warmed.warnings),
        "waited": "wait" in warmed.seconds,
        "seconds_warm": seconds_warm,
        "seconds_ready": ready,
        "compiled": compiled,
        "publish": str(published.status),
        "publish_reason": published.reason,
        "again": str(again.status),
        "bytes": warmed.bytes_stored,
    }
    fresh = Path(job.folder, "account.new")
    fresh.write_text(json.dumps(account))
    fresh.replace(Path(job.folder, "account.json"))


def end() -> NoReturn:
    """End as Python does, but for taking apart what PyTorch has built, which takes a second of the processor."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    os._exit(0)


def _pretend(facts: Mapping[str, str]) -> None:
    """Let megacache see another GPU or CPU than there is."""
    from dataclasses import replace

    from megacache import _compiler

    if facts:
        real = _compiler.current_environment()
        pretended = replace(real, facts={**real.facts, **facts})
        _compiler.current_environment = lambda deadline=None: pretended  # noqa: ARG005


def _compile(one: Compilation, job: Job) -> Sequence[str]:
    """Hand PyTorch what it would have found or compiled; give the graphs that it would have compiled."""
    from torch.compiler._cache import CacheArtifactManager

    from megacache._compiler.artifacts import _entries

    here = {key: _entries(kind, key) for kind, key, _ in one.artifacts}
    if all(here.values()):
        for kind, key, _ in one.artifacts:
            CacheArtifactManager.record_artifact(kind, key, here[key][0].read_bytes())
        return []
    with Path(job.folder, "compiling").open("a") as note:
        note.writelines(f"{graph}\n" for graph in one.graphs)
    salt = os.urandom(_SALT)
    time.sleep(one.seconds / job.speed * (0.8 + salt[0] / 640))
    for kind, key, content in one.artifacts:
        CacheArtifactManager.record_artifact(kind, key, content + salt)
    for path, content in one.libraries:
        library = Path(job.folder, "inductor", path)
        if not library.exists():
            library.parent.mkdir(parents=True, exist_ok=True)
            library.write_bytes(content + salt)
            library.chmod(0o755)
            ctypes.CDLL(str(library))
    return one.graphs
