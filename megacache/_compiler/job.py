"""The job of which this process is a rank, and the store by which torch brought its ranks together."""

import os
import socket
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Self, TypeVar

from megacache._compiler.door import door
from megacache._runtime import Deadline, call, kept
from megacache._settings import announced_job
from megacache.errors import UnavailableError

_Value = TypeVar("_Value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """Processes that compile the same and wait for one another."""

    size: int
    """How many ranks it has; more than one."""
    rank: int | None
    """Which of them this process is; None if nobody has told it."""
    address: tuple[str, int] | None
    """Host and port of a store that another process keeps open; None if there is none yet."""


_asked: set[int] = kept(set())
"""Ids of the processes that have been told that they are a rank: a child that one has forked is not that rank."""


def job() -> Job | None:
    """Tell of which job this process is a rank; None if it is alone, or the child of a rank."""
    if _asked and os.getpid() not in _asked:
        return None
    found = _find()
    if found is not None:
        _asked.add(os.getpid())
    return found


def _find() -> Job | None:
    from torch import distributed  # `import torch` has imported it

    with door("asking for its ranks"):
        if distributed.is_available() and distributed.is_initialized():
            size = int(distributed.get_world_size())
            return Job(size=size, rank=int(distributed.get_rank()), address=_default_address()) if size > 1 else None
    announced = announced_job()
    if announced.size <= 1:
        return None
    return Job(size=announced.size, rank=announced.rank, address=announced.store)


def _default_address() -> tuple[str, int] | None:
    from torch._C._distributed_c10d import PrefixStore, TCPStore
    from torch.distributed import distributed_c10d

    store: Any = distributed_c10d._get_default_store()
    while isinstance(store, PrefixStore):
        store = store.underlying_store
    # Files, and what MPI and Ray have of their own, are no place for others to meet.
    return (str(store.host), int(store.port)) if isinstance(store, TCPStore) else None


class Board:
    """Short texts that the ranks of a job show one another.

    They lie in the job's own store, under names that begin with `megacache/`. A restarted job may find those of the
    time before in it.
    """

    def __init__(self, store: Any, deadline: Deadline) -> None:
        self._store = store
        self._deadline = deadline

    @classmethod
    def open(cls, address: tuple[str, int], deadline: Deadline) -> Self:
        """Connect to the store; no server is started, and the connections of `torch.distributed` are left alone."""
        from torch._C._distributed_c10d import PrefixStore, TCPStore

        host, port = address
        doing = f"connecting to the store of this job at {host}:{port}"

        def connect() -> Any:
            # Torch goes on for longer than it is told to, and aborts a process that ends meanwhile.
            try:
                socket.create_connection(address, timeout=deadline.remaining() or 0.001).close()
            except OSError as error:
                msg = f"{doing} failed: {error}"
                raise UnavailableError(
                    msg, hint="check that rank 0 is alive, and that this host can reach it"
                ) from error
            timeout = timedelta(seconds=max(deadline.remaining(), 1.0))
            store = TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timeout)
            return PrefixStore("megacache", store)

        with door(doing):
            return cls(call(connect, deadline=deadline, doing=doing), deadline)

    def put(self, name: str, text: str) -> None:
        """Show a text, in place of any other under that name."""
        self._ask(lambda: self._store.set(name, text))

    def find(self, name: str) -> str | None:
        """Give a text, or None if there is none."""
        # Torch's own way to wait for one writes to stderr when it does not come in time.
        return self._ask(lambda: self._store.get(name).decode() if self._store.check([name]) else None)

    def count(self, name: str) -> int:
        """Count one more, and give the number of all."""
        return self._ask(lambda: int(self._store.add(name, 1)))

    def settle(self, name: str, text: str) -> str:
        """Show a text, unless there is one already; give the one that counts."""
        return self._ask(lambda: str(self._store.compare_set(name, "", text).decode()))

    def _ask(self, step: Callable[[], _Value]) -> _Value:
        # The store may hang, as any other.
        doing = "talking to the other ranks of this job"
        with door(doing):
            return call(step, deadline=self._deadline, doing=doing)
