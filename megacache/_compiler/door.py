"""What every step through the door does: hold the lock, keep the environment, translate exceptions."""

from collections.abc import Iterator
from contextlib import contextmanager

from megacache._runtime import Deadline
from megacache._settings import cache_folder_unpinned
from megacache._store import without_secrets
from megacache.errors import CompilerError, MegacacheError


@contextmanager
def door(doing: str) -> Iterator[None]:
    """Let no exception of torch out, and leave the variable of its cache folder as it was."""
    try:
        with cache_folder_unpinned():
            yield
    except MegacacheError:
        raise
    except Exception as error:
        msg = f"PyTorch failed while {doing}: {type(error).__name__}: {without_secrets(str(error))[:300]}"
        raise CompilerError(msg) from error


@contextmanager
def compile_lock(deadline: Deadline) -> Iterator[None]:
    """Hold the lock under which torch compiles, which its own save and load do not take."""
    from torch._dynamo.convert_frame import compile_lock as lock

    # It is reentrant from torch 2.8 to 2.15: a warm start within a compilation runs in the thread that holds it.
    if not lock.acquire(timeout=max(deadline.remaining(), 0.001)):
        raise deadline.missed("waiting for a compilation to end")
    try:
        yield
    finally:
        lock.release()
