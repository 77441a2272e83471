"""A bundle that kills the process that loads it."""

import pickle
import signal
from pathlib import Path

from megacache._bundle import Artifact, open_chunk, parse_blob, unseal
from tests.kit.damage import add_bundle, chunk_path, manifest_path

PICKLED = frozenset({"inductor", "aot_autograd", "pgo"})
"""The kinds that PyTorch unpickles."""


class Abort:
    """Unpickles into the death of the process; until then it looks like what PyTorch keeps under a kind."""

    def __init__(self, number: int) -> None:
        self._number = number

    def __reduce__(self) -> tuple[object, tuple[int], dict[str, None]]:
        return signal.raise_signal, (self._number,), dict.fromkeys(("guards_expr", "defaultdict"))


def poisoned(store: Path, number: int, kinds: frozenset[str] = PICKLED) -> str:
    """Put a bundle in the place of the sound one, with artifacts that kill the process that looks them up."""
    sound = manifest_path(store)
    ref = next(one for one in unseal(sound.read_bytes()).chunks if one.part == "artifacts")
    found = list(parse_blob(open_chunk(ref, chunk_path(store).read_bytes())))
    deadly = [
        Artifact(kind=one.kind, key=one.key, content=pickle.dumps(Abort(number))) for one in found if one.kind in kinds
    ]
    assert {one.kind for one in deadly} == kinds & {one.kind for one in found} != set()
    bundle = add_bundle(store, *deadly)
    sound.unlink()
    return bundle
