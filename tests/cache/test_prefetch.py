"""A warm start that is begun early: its download goes on beside the program, and what it found is loaded in time."""

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from megacache import Cache, WarmResult, WarmStatus, _compiler
from megacache._cache import warm_start
from megacache._cache.prefetch import Begun
from megacache._catalog import Catalog
from megacache._compiler import roots
from megacache._runtime import Deadline, forget
from megacache.errors import SettingsError
from tests.kit import faulty_disk
from tests.kit.builders import artifacts, bundle, environment, finish_workers, open_store, prefix_of, upload
from tests.kit.faults import PATIENT
from tests.kit.places import STEPS, timed
from tests.kit.processes import Processes, run_code, step
from tests.kit.torchless import Compiler

SECONDS = 2.0


@pytest.fixture
def url(tmp_path: Path, compiler: Compiler) -> Iterator[str]:
    """Publish some artifacts, as another process."""
    faulty_disk.register()
    found = f"{faulty_disk.PROTOCOL}://{tmp_path / 'store'}"
    compiler.compile(*artifacts(4))
    assert compiler.publish(found, {}, PATIENT).status == "published"
    forget()
    compiler.compile()
    faulty_disk.RULES.forget()
    yield found
    faulty_disk.RULES.heal()
    finish_workers()


def asked(request: str) -> int:
    """Count requests of a step."""
    return len(faulty_disk.RULES.requests(STEPS[request]))


def wait_for(request: str, *, times: int = 1) -> None:
    """Wait until there were so many requests of a step."""
    ends = time.monotonic() + PATIENT
    while asked(request) < times:
        assert time.monotonic() < ends
        time.sleep(0.01)


def test_nothing_is_loaded_before_it_is_asked_for(url: str, compiler: Compiler) -> None:
    """All requests are made in the background; the result loads, once, and makes none."""
    begun = Cache(url).prefetch()
    wait_for("chunk")
    assert compiler.loaded == []
    first = begun.result()
    assert (first.status, len(compiler.loaded)) == ("loaded", 1)
    assert begun.result() is first
    assert (asked("list"), asked("manifest"), asked("chunk"), len(compiler.loaded)) == (1, 1, 1, 1)


def test_only_what_the_program_waits_counts_as_its_cost(url: str) -> None:
    """The total leaves out the time that the program has spent on something else."""
    began = time.perf_counter()
    begun = Cache(url).prefetch()
    left = time.perf_counter()
    time.sleep(0.1)
    came_back = time.perf_counter()
    result = begun.result()
    assert result.seconds["total"] <= left - began + time.perf_counter() - came_back


def test_same_is_begun_once(url: str, compiler: Compiler) -> None:
    """Who asks for the same gets what has been begun, by `prefetch` or by `warm`; then all begins anew."""
    begun = Cache(url).prefetch()
    again = Cache(url).prefetch(timeout=PATIENT)
    assert Cache(url).warm() is begun.result()
    assert again.result() is begun.result()
    assert (asked("list"), len(compiler.loaded)) == (1, 1)
    assert Cache(url).warm().status == "loaded"
    assert (asked("list"), len(compiler.loaded)) == (2, 2)


@pytest.mark.parametrize("verb", ["prefetch", "warm"])
def test_others_finish_it_first(url: str, compiler: Compiler, verb: str, tmp_path: Path) -> None:
    """A call that is not for the same finds it loaded, and does its own."""
    begun = Cache(url).prefetch()
    other = getattr(Cache(str(tmp_path / "other")), verb)()
    assert len(compiler.loaded) == 1
    status = other.result().status if verb == "prefetch" else other.status
    assert status == "miss"
    assert begun.result().status == "loaded"
    assert len(compiler.loaded) == 1


def test_what_is_trusted_counts(url: str, compiler: Compiler) -> None:
    """Who trusts only certain keys is not given what was begun without them."""
    begun = Cache(url).prefetch()
    assert Cache(url, trusted_keys=[]).warm().status in {"untrusted", "unavailable"}
    assert (begun.result().status, len(compiler.loaded)) == ("loaded", 1)


@pytest.mark.parametrize("request_", ["list", "manifest", "chunk"])
def test_store_that_hangs(url: str, compiler: Compiler, request_: str) -> None:
    """Neither the call nor its result takes longer than the timeout, which began with the call."""
    faulty_disk.RULES.fail(STEPS[request_], faulty_disk.hang)
    begun = timed(lambda: Cache(url).prefetch(timeout=SECONDS), SECONDS)
    result = timed(begun.result, SECONDS)
    assert (result.status, compiler.loaded) == ("unavailable", [])
    assert f"not done within {SECONDS:g} s while" in result.reason


def test_what_came_in_time_is_loaded_late(url: str, compiler: Compiler) -> None:
    """A program that takes longer than the timeout finds what had come by then."""
    begun = Cache(url).prefetch(timeout=SECONDS)
    time.sleep(SECONDS + 0.1)
    assert begun.result().status == "loaded"
    assert len(compiler.loaded) == 1


@pytest.mark.usefixtures("compiler")
def test_fault_is_told_with_the_result() -> None:
    """Nothing is raised where it begins, whatever is wrong; the result is what that of `warm` would be."""
    assert Cache("nonsense://place").prefetch().result().status == "unavailable"
    begun = Cache("nonsense://place", strict=True).prefetch()
    with pytest.raises(SettingsError, match="nonsense"):
        begun.result()


def test_switched_off(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    """Nothing goes on in the background."""
    monkeypatch.setenv("MEGACACHE_DISABLE", "1")
    assert Cache(url).prefetch().result().status == "disabled"
    assert asked("list") == 0


def test_chunk_that_is_gone_makes_one_more_round(url: str, compiler: Compiler, tmp_path: Path) -> None:
    """The second listing is made in the background, too, and shows what took its place."""
    store, other = open_store(str(tmp_path / "store")), bundle(artifacts(2, seed=1))

    def replace(_: faulty_disk.Proceed) -> bytes:
        place = prefix_of(environment())
        for name in Catalog(store, place).list().visible:
            store.delete(place.manifest(name))
        upload(store, other)
        raise FileNotFoundError

    faulty_disk.RULES.fail(STEPS["chunk"], replace, times=1)
    begun = Cache(url).prefetch()
    wait_for("chunk", times=2)
    assert compiler.loaded == []
    result = begun.result()
    assert (result.bundles, len(result.warnings), asked("list")) == ((other.manifest.bundle,), 1, 2)


def test_interrupted_load_is_begun_anew(url: str, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where Ctrl-C, or an exception of a signal's handler, cuts it short, the next to ask gets all of it."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    begun = Cache(url).prefetch()
    with monkeypatch.context() as patch:
        patch.setattr(_compiler, "load_if_met", interrupt)
        with pytest.raises(KeyboardInterrupt):
            begun.result()
    assert begun.result().status == "loaded"
    assert len(compiler.loaded) == 1


def test_program_that_has_changed_meanwhile(url: str, compiler: Compiler, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was fetched for another device is not loaded: all is asked for anew."""
    begun = Cache(url).prefetch()
    wait_for("chunk")
    monkeypatch.setattr(_compiler, "current_environment", lambda _: environment(device_name="Another"))
    result = begun.result()
    assert (result.status, compiler.loaded) == ("miss", [])
    assert result.differs == ("device_name",)


def test_compiler_that_comes_later_is_warmed_as_well(url: str, tmp_path: Path) -> None:
    """A folder that an integration registers after the beginning is not forgotten."""
    begun = Cache(url).prefetch()
    wait_for("chunk")
    roots.register(roots.Root(name="later", folder=tmp_path / "later", facts={"later": "1"}, used=tuple))
    assert begun.result().status == "loaded"
    assert asked("list") == 2


def test_threads_finish_it_once(url: str, compiler: Compiler) -> None:
    """All that ask get one result, also while another thread has the lock under which PyTorch compiles."""
    begun = Cache(url).prefetch()
    found = []
    with _compiler.compile_lock(Deadline.after(PATIENT)):
        threads = [threading.Thread(target=lambda: found.append(begun.result())) for _ in range(4)]
        for thread in threads:
            thread.start()
        mine = begun.result()
        for thread in threads:  # without the lock: it is finished
            thread.join(PATIENT)
    assert [one is mine for one in found] == [True] * 4
    assert len(compiler.loaded) == 1


@pytest.mark.usefixtures("compiler")
def test_compilation_that_does_not_end(url: str) -> None:
    """A thread that compiles since before does not keep who asks for longer than the timeout."""
    begun = Cache(url).prefetch(timeout=SECONDS)
    found = []
    with _compiler.compile_lock(Deadline.after(PATIENT)):
        # The hook of this compilation came before there was anything to finish.
        thread = threading.Thread(target=lambda: found.append(timed(begun.result, SECONDS)))
        thread.start()
        thread.join(PATIENT)
    assert [one.status for one in found] == ["unavailable"]
    assert "waiting for a compilation to end" in found[0].reason
    assert begun.result().status == "loaded"


@pytest.mark.usefixtures("compiler")
def test_warm_waits_for_a_compilation_once(url: str) -> None:
    """Who asks for what has begun waits as long as that may take, and no longer."""
    Cache(url).prefetch(timeout=SECONDS)
    found = []
    with _compiler.compile_lock(Deadline.after(PATIENT)):
        thread = threading.Thread(target=lambda: found.append(timed(Cache(url).warm, SECONDS)))
        thread.start()
        thread.join(PATIENT)
    assert [one.status for one in found] == ["unavailable"]
    assert Cache(url).warm().status == "loaded"


@pytest.mark.usefixtures("compiler")
def test_thread_that_finishes_it_is_waited_for() -> None:
    """It has bounds of its own, which may be later: that of single flight, and that of the load."""
    begins, ends, found = threading.Event(), threading.Event(), WarmResult(url="", status=WarmStatus.LOADED)

    def load() -> WarmResult:
        begins.set()
        ends.wait(PATIENT)
        return found

    begun = Begun(load, load, lambda steps: steps(), terms=None, seconds=0.1)
    thread, timer = threading.Thread(target=begun.finish), threading.Timer(0.5, ends.set)
    thread.start()
    begins.wait(PATIENT)
    timer.start()
    assert begun.finish() is found
    thread.join(PATIENT)


def test_more_than_may_be_held_is_left_out(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bundle that does not fit into memory is not fetched, and named, with the limit that was the smaller one."""
    monkeypatch.setattr(warm_start, "HELD_BYTES", 100)
    result = Cache(url).prefetch().result()
    assert result.status == "miss"
    assert "more than is left of the 100 bytes that a rank or a prefetch may hold in memory" in result.reason
    assert "more than is left of max_bytes" in Cache(url).prefetch(max_bytes=99).result().reason
    assert asked("chunk") == 0


@pytest.mark.usefixtures("compiler")
def test_waits_for_another_worker_in_the_background(tmp_path: Path) -> None:
    """Single flight is as in `warm`: this process is told at once that the others wait for it."""
    begun = Cache(str(tmp_path)).prefetch(wait=PATIENT)
    result = begun.result()
    assert result.status == "miss"
    assert result.reason.endswith("this process compiles for the others, which wait")


@pytest.mark.usefixtures("compiler")
def test_who_waits_is_not_given_a_miss_of_one_that_did_not(tmp_path: Path) -> None:
    """Below `megacache run --wait` a program that begins without a wait takes part in single flight all the same."""
    begun = Cache(str(tmp_path)).prefetch()
    waited = Cache(str(tmp_path)).warm(wait=PATIENT)
    assert (begun.result().status, waited.status) == ("miss", "miss")
    assert waited.reason.endswith("this process compiles for the others, which wait")
    begun = Cache(str(tmp_path)).prefetch(wait=PATIENT)
    assert Cache(str(tmp_path)).warm(wait=PATIENT) is begun.result()


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory, probes: Path) -> str:
    """Publish a real bundle."""
    folder = tmp_path_factory.mktemp("prefetch")
    store = str(folder / "store")
    _, answer = Processes(folder / "processes", probes).run(step("run", model="doubling"), step("publish", url=store))
    assert answer["status"] == "published"
    return store


def test_first_compilation_finishes_it(published: str, processes: Processes) -> None:
    """A program that never asks for the result hits; the result tells so afterwards, and nothing is published."""
    _, ran, result, again = processes.run(
        step("prefetch", url=published),
        step("run", model="doubling"),
        step("result"),
        step("publish", url=published),
    )
    assert (ran["fx_hit"], ran["fx_miss"]) == (1, 0)
    assert result["status"] == "loaded"
    assert result["warnings"] == []
    assert again["status"] == "unchanged"
    assert again["receipt"]["warm_starts"] == 1


def test_forked_child_begins_anew(published: str, processes: Processes) -> None:
    """A child of a process that has begun one loads for itself, by its compilation or when it asks; so does the parent.

    Without it the child would wait for a thread that it does not have.
    """
    _, asked_, ran, result = processes.run(
        step("prefetch", url=published), step("result_in_fork"), step("run_in_fork", model="doubling"), step("result")
    )
    assert (asked_["status"], result["status"]) == ("loaded", "loaded")
    assert (ran["fx_hit"], ran["fx_miss"]) == (1, 0)


IMPORTS = """
import sys, threading
import torch
import megacache

elsewhere, main = [], threading.get_ident()

def watch(event, details):
    if event == "import" and threading.get_ident() != main:
        elsewhere.append(str(details[0]))

sys.addaudithook(watch)
begun = megacache.prefetch(sys.argv[1])
import torch._inductor.compile_fx
print(begun.result().status, megacache.warm(sys.argv[1]).status)
print(elsewhere)
"""


def test_no_other_thread_imports_anything(published: str) -> None:
    """Neither in the background of `prefetch` nor in that of `warm`: two threads may see PyTorch's modules half made.

    A child that is forked meanwhile would wait for ever for a module that a thread of its parent was importing.
    """
    done = run_code(IMPORTS, published)
    assert done.stdout.splitlines() == ["loaded loaded", "[]"], done.stderr[-2000:]


LEAVES = """
import sys
import megacache
from tests.kit import faulty_disk
from tests.kit.places import STEPS

faulty_disk.register()
faulty_disk.RULES.fail(STEPS["chunk"], faulty_disk.hang)
megacache.prefetch(f"faulty://{sys.argv[1]}")
while not faulty_disk.RULES.requests(STEPS["chunk"]):
    pass
print("the end")
"""


def test_program_that_ends_does_not_wait(published: str) -> None:
    """A download that hangs does not keep the process, which ends well and says nothing."""
    done = timed(lambda: run_code(LEAVES, published), 30.0)
    assert (done.returncode, done.stdout, done.stderr) == (0, "the end\n", "")
