"""Feed one reader under atheris: `python -m tests.fuzz.child READER [options of libFuzzer]`."""

import random
import signal
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["megacache"]):
    from tests.fuzz.readers import READERS, Reader

from tests.fuzz.mutations import changed


def mutate(data: bytes, most: int, seed: int) -> bytes:
    """Change an input, in two of three cases as what it is, else as libFuzzer likes it."""
    rng = random.Random(seed)
    if rng.random() < 0.34:
        mutated: bytes = atheris.Mutate(data, most)
        return mutated
    found = changed(data, rng)
    return found if len(found) <= most else data


def feed(reader: Reader) -> Callable[[bytes], None]:
    """Make of a reader what libFuzzer calls."""

    def one(data: bytes) -> None:
        reader.accepts(data)

    return one


def main() -> None:
    """Begin with what the reader accepts, in a folder of its own."""
    name, *options = sys.argv[1:]
    reader = READERS[name]
    with tempfile.TemporaryDirectory(prefix="megacache-seeds-") as seeds:
        for number, seed in enumerate(reader.seeds):
            (Path(seeds) / str(number)).write_bytes(seed)
        atheris.Setup([sys.argv[0], *options, seeds], feed(reader), custom_mutator=mutate)
        try:
            atheris.Fuzz()
        finally:
            # libFuzzer's clock runs on, and its alarm would kill an interpreter that takes long to end.
            signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
