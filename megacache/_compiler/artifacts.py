"""What this process has recorded, and what it is given to load."""

import json
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megacache._bundle import Artifact, ArtifactRef, Digest, build_blob, parse_blob
from megacache._compiler.autotuners import lead_autotuners
from megacache._compiler.door import compile_lock, door
from megacache._runtime import Deadline, call, inner_folder
from megacache.errors import CompilerError, UnavailableError

FOLDER = "using PyTorch's cache folder"
"""What is done when the disk that holds it does not answer."""
UNDO_SECONDS = 2.0
"""What is left for the disk once a blob has been handed over, however late it is."""

_AHEAD_OF_TIME = b"BundledAOTAutogradResult"
"""The class of an entry that holds its graph, as those do that are compiled ahead of time."""
_LOG = "PyTorch's logger torch.compiler._cache says why"
_NAME = re.compile(r"[A-Za-z0-9_-]+")
"""A key that is the name of a folder. `..` is not one, nor is the empty key, whose folder would hold all keys."""


_STATE = b"guards_expr"
_READ: Mapping[str, Callable[[bytes], bool]] = {
    "inductor": lambda content: _STATE in content,
    "aot_autograd": lambda content: _STATE in content,
    "autotune": lambda content: isinstance(json.loads(content), dict),
    "pgo": lambda content: b"defaultdict" in content,
}
"""Whether an artifact has what torch takes for granted, by kind: without it, a later compilation fails.

A graph has guards, a profile is a `defaultdict`, the result of an autotuning is an object of JSON.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Loaded:
    """What torch says it loaded, of one blob or of several."""

    info: Any = None
    """`torch.compiler.CacheInfo`, or None before anything was loaded."""
    written: frozenset[Path] = frozenset()
    """The files that were not there before."""

    def counts(self) -> dict[str, int]:
        """Count artifacts by kind."""
        return {} if self.info is None else {kind: len(keys) for kind, keys in self.info.artifacts.items()}

    def plus(self, other: "Loaded") -> "Loaded":
        """Merge in what another blob held."""
        if self.info is None or other.info is None:
            return other if self.info is None else self
        for kind, keys in other.info.artifacts.items():
            self.info.artifacts[kind].extend(keys)
        return self


def record(deadline: Deadline) -> tuple[Artifact, ...]:
    """Give all that torch has recorded in this process, in all its saves; contents are views of its one blob.

    A process that saves twice makes a blob with several groups of a kind, of which torch's own loader keeps only the
    last. Left out is what no other process would look for.
    """
    with door("saving its cache artifacts"):
        import torch
        import torch._dynamo

        with compile_lock(deadline):
            saved = torch.compiler.save_cache_artifacts()
            if saved is None:
                _check_nothing_recorded()
        random_keys = _ahead_of_time_keys_are_random()
    artifacts = () if saved is None else parse_blob(saved[0])
    return tuple(one for one in artifacts if not (random_keys and _is_ahead_of_time(one)))


def _ahead_of_time_keys_are_random() -> bool:
    """Tell whether this torch puts the name of a graph compiled ahead of time, which is random, into its key."""
    from torch._functorch._aot_autograd.schemas import AOTConfig

    # The method is in torch 2.13 to 2.15, and not in 2.11.
    return hasattr(AOTConfig, "to_cacheable")


def _is_ahead_of_time(artifact: Artifact) -> bool:
    return artifact.kind == "aot_autograd" and _AHEAD_OF_TIME in bytes(artifact.content)


def _check_nothing_recorded() -> None:
    """Raise `CompilerError` if there was something to save, and let torch's next save begin anew."""
    from torch.compiler import _cache

    recorder: Any = getattr(_cache, "CacheArtifactManager", None)
    if recorder is None or recorder._cache_info.empty():
        return
    # A save that failed, as for lack of memory, leaves a part of what it wrote, from which all later ones would go on.
    recorder._serializer.clear()
    recorder._new_cache_artifacts.clear()
    for artifact in recorder._seen_artifacts:
        recorder._new_cache_artifacts[artifact.type()].append(artifact)
    raise CompilerError("PyTorch could not save what it has recorded", hint=_LOG)


def load(raw: bytes, deadline: Deadline) -> Loaded:
    """Hand one blob to torch, in this thread.

    Raises `CompilerError` if torch does not take all of it, or could not use it; then nothing of it is left behind.
    What torch itself writes is not cut short; the looks into its folder before and after are.
    """
    lead_autotuners()
    with door("loading cache artifacts"):
        import torch
        import torch._dynamo

        artifacts = tuple(parse_blob(raw))
        _check_usable(artifacts)
        # While it is off, torch's loader fails on a profile.
        blob = raw if torch._dynamo.config.automatic_dynamic_local_pgo else _without(artifacts, "pgo")
        before = call(lambda: _files(artifacts), deadline=deadline, doing=FOLDER)
        try:
            with compile_lock(deadline):
                info = torch.compiler.load_cache_artifacts(blob)
        except BaseException:
            with suppress(UnavailableError):
                undone = Deadline.after(UNDO_SECONDS)
                call(lambda: take_back(_files(artifacts) - before), deadline=undone, doing=FOLDER)
            raise
        after = call(lambda: _files(artifacts), deadline=deadline.no_sooner(UNDO_SECONDS), doing=FOLDER)
    if info is None:
        msg = "PyTorch could not load a chunk of artifacts"
        raise CompilerError(msg, hint=_LOG)
    return Loaded(info=info, written=after - before)


def take_back(written: Iterable[Path]) -> None:
    """Remove what a blob has left in torch's cache folder."""
    for path in written:
        with suppress(OSError, ValueError), _reached(path) as reached:
            reached.unlink()


def _check_usable(artifacts: Iterable[Artifact]) -> None:
    for artifact in artifacts:
        try:
            usable = _READ[artifact.kind](bytes(artifact.content))
        except ValueError:
            usable = False
        if not usable:
            msg = f"PyTorch could not use {artifact.kind} artifact {artifact.key[:80]!r}"
            raise CompilerError(msg, hint="`megacache quarantine` hides its bundle from every reader")


def _files(artifacts: Iterable[Artifact]) -> frozenset[Path]:
    """Find the files that hold what torch may unpickle under the keys of some artifacts."""
    return frozenset(path for one in artifacts for path in _entries(one.kind, one.key) if path.is_file())


def forget(artifacts: Iterable[tuple[str, str]]) -> None:
    """Remove from torch's cache folder what it unpickles, given by kind and key: graphs and profiles.

    Of the kinds that travel the other one, `autotune`, is read as JSON.
    """
    with door("removing cached graphs"):
        for kind, key in artifacts:
            if kind == "pgo":
                with suppress(ValueError):  # what has no name on this disk is not there
                    take_back([_profile(key)])
            else:  # their folder stays: torch may be about to list it
                take_back(_entries(kind, key))


def forget_exactly(artifacts: Iterable[ArtifactRef]) -> None:
    """Remove what `forget` removes, but only files with the content that the reference names."""
    with door("removing cached graphs"):
        for artifact in artifacts:
            for entry in _entries(artifact.kind, artifact.key):
                with suppress(OSError, ValueError), _reached(entry) as path:
                    if stat.S_ISREG(path.lstat().st_mode) and Digest.of(path.read_bytes()) == artifact.digest:
                        path.unlink()


@contextmanager
def _reached(path: Path) -> Iterator[Path]:
    """Give a path in torch's cache folder by a way that goes through no link below it; raise `OSError`."""
    from torch._inductor.runtime.cache_dir_utils import cache_dir

    base = Path(cache_dir())
    *way, name = path.relative_to(base).parts
    with inner_folder(base, *way) as folder:
        yield folder / name


def _entries(kind: str, key: str) -> Sequence[Path]:
    """Find the files in which torch may keep an artifact that it unpickles."""
    if kind == "pgo":
        return (_profile(key),)
    folder = _folder(kind, key)
    try:
        return () if folder is None else tuple(folder.iterdir())
    except OSError:
        return ()


def _folder(kind: str, key: str) -> Path | None:
    """Find the folder in which torch keeps the graphs of one key, each under a digest of its content."""
    from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache
    from torch._inductor.codecache import FxGraphCache

    owners: dict[str, Any] = {"inductor": FxGraphCache, "aot_autograd": AOTAutogradCache}
    if kind not in owners or not _NAME.fullmatch(key):
        return None
    return Path(owners[kind]._get_tmp_dir_for_key(key))


def _profile(key: str) -> Path:
    """Find the file in which torch keeps the profile of a key, whether it would read it in this process or not."""
    from torch._dynamo import config, pgo

    with config.patch(automatic_dynamic_local_pgo=True):
        path: Any = pgo.code_state_path(pgo.PGOCacheArtifact._rewrite_cache_key_for_mega_cache(key))
        return Path(path)


@contextmanager
def unrecorded() -> Iterator[None]:
    """Keep out of torch's record what it loads meanwhile: it records a hit as if it had compiled it."""
    from torch.compiler import _cache

    fresh = getattr(getattr(_cache, "CacheArtifactManager", None), "with_fresh_cache", nullcontext)
    with fresh():
        yield


def _without(artifacts: Iterable[Artifact], kind: str) -> bytes:
    return build_blob(artifact for artifact in artifacts if artifact.kind != kind)
