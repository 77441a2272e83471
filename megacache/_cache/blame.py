"""Leave out of later starts on this host what a program could not use, as what it died of is left out."""

import logging
from collections.abc import Collection, Sequence
from contextlib import suppress
from pathlib import Path

from megacache import _compiler
from megacache._bundle import Digest
from megacache._cache.crash_guard import guards
from megacache._cache.session import sessions
from megacache._compiler import roots as known_roots
from megacache._runtime import Deadline, call

_SECONDS = 30.0
"""Seconds that a program waits for this, which has failed already."""
_log = logging.getLogger("megacache")


def blame(root: str, paths: Collection[Path], why: str) -> Sequence[str]:
    """Note that a program has failed with files below the folder of its root; give the bundles that they came from.

    The files are removed if they came from a bundle, so that the program does not meet them again. What it then
    compiles in their place is published, unless something had failed on this host before.

    Raises:
        UnavailableError: The disk does not answer.
    """
    found = known_roots.find(root)
    if found is None:
        return ()
    blamed = call(lambda: _note(found, paths), deadline=Deadline.after(_SECONDS), doing=_compiler.FOLDER)
    if blamed:
        _log.warning("bundle %s is left out on this host from now on: %s", ", ".join(blamed), why)
    return blamed


def _note(root: known_roots.Root, paths: Collection[Path]) -> Sequence[str]:
    there = [path for path in paths if path.is_file()]
    digests = {path.relative_to(root.folder).as_posix(): Digest.of(path.read_bytes()) for path in there}
    blamed = []
    for guard in guards():
        failed_before = guard.notes.failed()
        for suspect in guard.holding(root.name, digests):
            blamed.append(suspect.bundle)
            guard.notes.note_failure(suspect.bundle)
            if not failed_before:
                for session in sessions():
                    session.disown(suspect.bundle, suspect.files)
    for path in there if blamed else ():
        with suppress(OSError):
            path.unlink()
    return blamed
