"""A disk below PyTorch's cache folder that hangs: a call ends within its deadline all the same, and says why."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from megacache._cache import crash_guard
from tests.kit import faulty_disk
from tests.kit.builders import artifacts, compiled_file, noise
from tests.kit.disks import hanging
from tests.kit.faults import PATIENT
from tests.kit.places import timed
from tests.kit.processes import Processes, run_code, step
from tests.kit.torchless import Compiler

SECONDS = 2.0
REASON = "not done within 2 s while using PyTorch's cache folder"
FILES = [compiled_file(f"ab/library{n}.so", noise(1_000, n)) for n in range(3)]


@pytest.fixture
def published(tmp_path: Path, compiler: Compiler) -> Iterator[str]:
    """Publish artifacts and files."""
    faulty_disk.register()
    compiler.compile(*artifacts(4), files=FILES)
    assert compiler.publish(str(tmp_path / "store"), {}, PATIENT).status == "published"
    yield f"{faulty_disk.PROTOCOL}://{tmp_path / 'store'}"
    faulty_disk.RULES.heal()


def test_warm_start_ends_if_the_disk_hangs_from_the_beginning(published: str, compiler: Compiler) -> None:
    """Looking for markers is within the deadline; when the disk is back, all is loaded."""
    with hanging(compiler.folder):
        result = timed(lambda: compiler.warm(published, {}, SECONDS), SECONDS)
    assert (result.status, compiler.loaded) == ("unavailable", [])
    assert REASON in result.reason
    assert compiler.warm(published, {}, PATIENT).files == len(FILES)


@pytest.mark.parametrize("request_", ["LIST", "GET .*/bundles/", "GET .*/chunks/"])
def test_warm_start_ends_if_the_disk_hangs_on_the_way(published: str, compiler: Compiler, request_: str) -> None:
    """Whatever it was about to do with the disk, the call ends; a later one loads all."""
    with ExitStack() as stack:

        def hang(proceed: faulty_disk.Proceed) -> Any:
            stack.enter_context(hanging(compiler.folder))
            return proceed()

        faulty_disk.RULES.fail(request_, hang, times=1)
        result = timed(lambda: compiler.warm(published, {}, SECONDS), SECONDS)
    assert REASON in "; ".join([result.reason, *result.warnings])
    assert compiler.warm(published, {}, PATIENT).files == len(FILES)


def test_end_of_the_process_does_not_wait_for_the_disk(published: str, compiler: Compiler) -> None:
    """A process that has put its markers up ends although nobody can take them down."""
    assert compiler.warm(published, {}, PATIENT).status == "loaded"
    with hanging(compiler.folder):
        timed(crash_guard.disarm_all, SECONDS)


def test_real_process_ends_its_warm_start_and_itself(published: str, processes: Processes, tmp_path: Path) -> None:
    """PyTorch's own cache folder hangs: the reason is told in time, and nothing that hangs keeps the process alive."""
    url = published.removeprefix(f"{faulty_disk.PROTOCOL}://")
    with hanging(tmp_path / "folder"):
        (result,) = processes.run(step("warm", url=url, timeout=SECONDS), folder=tmp_path / "folder")
    assert result["status"] == "unavailable"
    assert REASON in result["reason"]


FRESH = """
import os, sys
from pathlib import Path
import megacache
from tests.kit.disks import hanging

with hanging(Path(os.environ["TORCHINDUCTOR_CACHE_DIR"])):
    for verb in (megacache.warm, megacache.explain, megacache.publish):
        print(verb(sys.argv[1], timeout=2).reason)
"""


def test_first_call_of_a_program_ends_if_the_disk_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's compiler looks into its folder as it is imported: that is not waited for, either."""
    with hanging(tmp_path / "probe"):  # skips where none can be had
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "folder"))
    done = run_code(FRESH, str(tmp_path / "store"))
    assert done.stdout.count(REASON) == 3, done.stderr[-2000:]


PUBLISH = """
import sys
from pathlib import Path
import megacache
from tests.kit import models
from tests.kit.disks import hanging
from torch._inductor.runtime.cache_dir_utils import cache_dir

models.doubling()
with hanging(Path(cache_dir())):
    result = megacache.publish(sys.argv[1], timeout=2)
print(result.status, result.reason)
"""


def test_publication_ends_if_the_disk_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """PyTorch's own folder hangs once the model has been compiled: the publication ends, and says why."""
    with hanging(tmp_path / "probe"):  # skips where none can be had
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "folder"))
    done = run_code(PUBLISH, str(tmp_path / "store"))
    assert done.stdout.startswith("unavailable"), done.stderr[-2000:]
    assert REASON in done.stdout


LOADS = """
import sys
from contextlib import ExitStack
from pathlib import Path
import megacache, torch
from tests.kit.disks import hanging
from torch._inductor.runtime.cache_dir_utils import cache_dir

with ExitStack() as stack:
    load = torch.compiler.load_cache_artifacts

    def hang(blob):
        try:
            return load(blob)
        finally:
            stack.enter_context(hanging(Path(cache_dir())))

    torch.compiler.load_cache_artifacts = hang
    result = megacache.warm(sys.argv[1], timeout=2)
print(result.status, result.reason, result.warnings)
"""


def test_warm_start_ends_if_the_disk_hangs_once_pytorch_has_written(
    tmp_path: Path, processes: Processes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What PyTorch has loaded cannot be looked at any more: the call ends, and says why."""
    with hanging(tmp_path / "probe"):  # skips where none can be had
        processes.run(step("run", model="inference"), step("publish", url=str(tmp_path / "store")))
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "folder"))
    done = run_code(LOADS, str(tmp_path / "store"))
    assert done.stdout.startswith(("unavailable", "partial")), done.stderr[-2000:]
    assert "while using PyTorch's cache folder" in done.stdout


WATCHED = """
import os, sys, threading
import megacache, torch
import torch._dynamo  # it looks into the folder as it is imported
from tests.kit import models

folder = os.environ["TORCHINDUCTOR_CACHE_DIR"]
main, idle, seen = threading.main_thread(), threading.Event(), set()
accesses = 0


def look(event, path):
    global accesses
    if idle.is_set() or not isinstance(path, (str, os.PathLike)) or not os.fspath(path).startswith(folder):
        return
    accesses += 1
    if threading.current_thread() is main:
        frames, frame = [], sys._getframe(2)
        while frame:
            frames.append(frame.f_code.co_name)
            frame = frame.f_back
        # What PyTorch writes itself is not cut short.
        if "load_cache_artifacts" not in frames:
            seen.add(f"{event}: {' < '.join(frames[:8])}")


def watched(name, function):
    def told(path, *arguments, **options):
        look(name, path)
        return function(path, *arguments, **options)

    return told


for name in ("stat", "lstat", "access"):  # these tell no hook
    setattr(os, name, watched(name, getattr(os, name)))
sys.addaudithook(lambda event, arguments: look(event, arguments[0]) if event.startswith(("open", "os.")) else None)

statuses = [megacache.warm(sys.argv[1]).status]
idle.set()
models.doubling()
idle.clear()
statuses += [megacache.explain(sys.argv[1]).status, megacache.publish(sys.argv[1]).status]
print(*statuses, accesses > 100, *sorted(seen))
"""


def test_no_call_touches_the_disk_in_the_thread_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every step in PyTorch's cache folder can be left behind, wherever the disk begins to hang."""
    told = []
    for name in ("first", "second"):
        monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / name))
        done = run_code(WATCHED, str(tmp_path / "store"))
        assert done.returncode == 0, done.stderr[-2000:]
        told.append(done.stdout.strip())
    assert told == ["miss environment published True", "loaded covered unchanged True"]


def test_publication_ends_if_compiled_files_cannot_be_read(tmp_path: Path, processes: Processes) -> None:
    """Triton's folder hangs below a program without a GPU: its publication ends, and says what it was doing."""
    with hanging(tmp_path / "triton"):
        _, result = processes.run(
            step("run", model="inference"),
            step("publish", url=str(tmp_path / "store"), timeout=SECONDS),
            environment={"TRITON_CACHE_DIR": str(tmp_path / "triton")},
        )
    assert result["status"] == "unavailable"
    assert "while reading compiled files" in result["reason"]
