"""A program that gevent has patched is told so, where it would otherwise try for ever."""

from pathlib import Path

import pytest

from tests.kit.processes import run_code

ASKS = """
from gevent import monkey
monkey.patch_all()
import sys
from megacache._runtime import Deadline
from megacache._store import Store
from megacache.errors import UnavailableError
for url in sys.argv[2:]:
    try:
        Store.open(url, storage_options=None, deadline=Deadline.after(30)).list()
    except UnavailableError as error:
        print(error)
folder = Store.open(sys.argv[1], storage_options=None, deadline=Deadline.after(30))
print(folder.create("one", b"1"), folder.read("one", size=1), len(folder.list()))
"""
URLS = ("s3://bucket/x", "gs://bucket/x", "https://host/x", "zip://x::s3://bucket/x.zip", "simplecache::s3://bucket/x")


def test_patched_program_is_told(tmp_path: Path) -> None:
    """What asks over asyncio says what is wrong with the process, not with the store; a folder works."""
    pytest.importorskip("gevent")
    done = run_code(ASKS, str(tmp_path), *URLS)
    *told, folder = done.stdout.splitlines()
    assert folder == "True b'1' 1", done.stderr
    assert [line.partition(": gevent has replaced Python's sockets and threads")[0] for line in told] == [*URLS]
    assert all("copy the cache to a folder with `megacache pull`" in line for line in told)
