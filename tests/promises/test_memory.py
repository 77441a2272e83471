"""Whatever there is no memory for, a call answers with a result, and the program goes on."""

from pathlib import Path

from tests.kit.processes import run_code

SQUEEZED = """
import resource, sys
import megacache
from megacache._bundle import build_blob
from tests.kit import models
from tests.kit.builders import artifact, noise

folder, hard = sys.argv[1], resource.getrlimit(resource.RLIMIT_AS)[1]

def squeeze(slack, call, *arguments):
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + slack, hard))
    try:
        result = call(*arguments)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (hard, hard))
    print(call.__name__, result.status, "why:", result.reason)

models.doubling()
squeeze(0, megacache.publish, f"file://{folder}/nothing")
blob = build_blob([artifact(content=noise(16 << 20))])
for slack in range(0, 96 << 20, 8 << 20):
    url = f"file://{folder}/{slack}"
    squeeze(slack, megacache.publish, url)
    squeeze(slack, megacache.warm, url)
    squeeze(slack, megacache.Cache(f"{url}/imported").import_blob, blob)
"""
"""Give each call more and more address space, from nearly nothing on."""


def test_lack_of_memory_is_a_result(tmp_path: Path) -> None:
    """Whether zstd, PyTorch, a thread or the system gets no memory, the call is unavailable, and not for good."""
    done = run_code(SQUEEZED, str(tmp_path))
    assert done.returncode == 0, done.stderr[-2000:]
    found = {tuple(line.split()[:2]) for line in done.stdout.splitlines()}
    stored = {("publish", "published"), ("warm", "loaded"), ("import_blob", "published")}
    lacking = {("publish", "unavailable"), ("import_blob", "unavailable")}
    assert stored | lacking <= found, done.stdout
    assert found <= stored | lacking | {("warm", "miss"), ("warm", "unavailable")}, done.stdout
