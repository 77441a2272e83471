"""The verbs in a whole program: blocks, background publications, switches and defaults."""

import os
from pathlib import Path
from typing import Any

import pytest
import torch

from megacache import Cache, MegacacheError
from tests.kit.builders import artifact, finish_workers
from tests.kit.processes import JOB, Processes, run_code, step
from tests.kit.servers.moto import MotoServer
from tests.kit.torchless import Compiler


def test_block_that_succeeds_is_published(processes: Processes, tmp_path: Path) -> None:
    """`synchronized` warms before the block and publishes after it."""
    block = step("synchronize", url=str(tmp_path / "store"), model="doubling", fails=False)
    (first,) = processes.run(block)
    (second,) = processes.run(block)
    assert (first["warmed"]["status"], first["published"]["status"]) == ("miss", "published")
    assert (second["warmed"]["status"], second["published"]["status"]) == ("loaded", "unchanged")
    assert second["ran"]["fx_miss"] == 0


INTERRUPTED = """
import signal, sys
import megacache
from tests.kit import models

def publish(*_):
    results.append(megacache.publish(sys.argv[1], timeout=10))

results = []
signal.signal(signal.SIGUSR1, publish)
models.doubling()
cache = megacache.Cache(sys.argv[1], progress=lambda _: results or signal.raise_signal(signal.SIGUSR1))
results.append(cache.publish())
print(*(result.status for result in results), *("turn" in result.seconds for result in results))
"""
"""Publish in a signal's handler, in the middle of a publication."""


@pytest.mark.parametrize("publish_on_error", [False, True])
def test_block_that_fails_is_published_only_if_asked(
    publish_on_error: bool, processes: Processes, tmp_path: Path
) -> None:
    """The block's exception goes on; what it compiled is published only on request."""
    url = str(tmp_path / "store")
    (answer,) = processes.run(
        step("synchronize", url=url, model="doubling", fails=True, publish_on_error=publish_on_error)
    )
    assert answer["caught"] == "the block failed"
    assert (answer["published"] or {}).get("status") == ("published" if publish_on_error else None)
    (warmed,) = processes.run(step("warm", url=url))
    assert warmed["status"] == ("loaded" if publish_on_error else "miss")


def test_background_publication_ends_before_the_process(
    moto_server: MotoServer, processes: Processes, name: str
) -> None:
    """A program that publishes in the background and ends at once leaves a whole bundle, also by host name."""
    server = moto_server.server
    options: dict[str, Any] = dict(server.storage_options)
    options["endpoint_url"] = str(options["endpoint_url"]).replace("127.0.0.1", "localhost")
    there = {"url": f"{server.url}/{name}", "storage_options": options}
    processes.run(step("run", model="doubling"), step("publish_and_go_on", **there))
    warmed, ran = processes.run(step("warm", **there), step("run", model="doubling"))
    assert warmed["status"] == "loaded"
    assert ran["fx_miss"] == 0


def test_background_publication_holds_what_was_recorded_when_it_was_called(
    processes: Processes, tmp_path: Path
) -> None:
    """What is compiled after the call is left to the next publication, which waits for the first."""
    url = str(tmp_path / "store")
    *_, second = processes.run(
        step("run", model="doubling"),
        step("publish_and_go_on", url=url),
        step("run", model="cosine"),
        step("publish", url=url, wait=False),
    )
    assert second["status"] == "published"
    assert second["artifacts"] == {"inductor": 1, "aot_autograd": 1}
    (warmed,) = processes.run(step("warm", url=url))
    assert warmed["artifacts"] == {"inductor": 2, "aot_autograd": 2}


def test_forked_child_publishes_what_its_parent_compiled(
    moto_server: MotoServer, processes: Processes, name: str
) -> None:
    """A process forked from one that used the store publishes to it, and repeats nothing its parent had published."""
    server = moto_server.server
    there = {"url": f"{server.url}/{name}", "storage_options": server.storage_options}
    *_, published, unchanged, _, added = processes.run(
        step("run", model="doubling"),
        step("publish", **there),
        step("publish_in_fork", **there),
        step("run", model="cosine"),
        step("publish_in_fork", **there),
    )
    assert (published["status"], unchanged["status"], added["status"]) == ("published", "unchanged", "published")


@pytest.mark.parametrize(
    ("variable", "value", "statuses"),
    [
        ("MEGACACHE_DISABLE", "1", ("disabled", "disabled")),
        ("MEGACACHE_READ_ONLY", "1", ("miss", "read_only")),
        ("TORCHINDUCTOR_FORCE_DISABLE_CACHES", "1", ("disabled", "disabled")),
        ("TORCHINDUCTOR_FX_GRAPH_CACHE", "0", ("disabled", "disabled")),
        ("MEGACACHE_DISABLE", "perhaps", ("unavailable", "unavailable")),
    ],
)
def test_switches(variable: str, value: str, statuses: tuple[str, str], processes: Processes, tmp_path: Path) -> None:
    """Each switch, of megacache or of torch, decides the status of both verbs and is named in the reason."""
    url = str(tmp_path / "store")
    warmed, published = processes.run(step("warm", url=url), step("publish", url=url), environment={variable: value})
    assert (warmed["status"], published["status"]) == statuses
    assert variable.removeprefix("TORCHINDUCTOR_").lower() in published["reason"].lower()
    assert not (tmp_path / "store").exists()


def test_default_store_is_in_the_users_cache_folder(processes: Processes, tmp_path: Path) -> None:
    """Without a URL, the store lies under the user's cache folder; `MEGACACHE_URL` names another."""
    home: dict[str, str | None] = {"XDG_CACHE_HOME": str(tmp_path / "home"), "MEGACACHE_URL": None}
    processes.run(step("run", model="doubling"), step("publish"), environment=home)
    assert list((tmp_path / "home" / "megacache" / "store").glob("*/*/bundles/*.msgpack"))
    (elsewhere,) = processes.run(step("warm"), environment=home | {"MEGACACHE_URL": str(tmp_path / "other")})
    assert (elsewhere["status"], elsewhere["reason"][:20]) == ("miss", "nothing is published")


def test_nothing_compiled_is_empty(processes: Processes, tmp_path: Path) -> None:
    """A process that has compiled nothing has nothing to publish."""
    (published,) = processes.run(step("publish", url=str(tmp_path / "store")))
    assert (published["status"], published["true"]) == ("empty", False)


@pytest.mark.skipif(torch.__version__.startswith("2.8."), reason="PyTorch 2.8 has no caching_precompile")
def test_precompile_artifacts_are_left_out(processes: Processes, tmp_path: Path) -> None:
    """With caching_precompile on, its artifacts do not travel, and both verbs say so."""
    url = str(tmp_path / "store")
    warmed, _, published = processes.run(
        step("warm", url=url),
        step("run", model="doubling"),
        step("publish", url=url),
        environment={"TORCH_CACHING_PRECOMPILE": "1"},
    )
    assert any("caching_precompile" in warning for warning in warmed["warnings"])
    assert any("precompile" in warning for warning in published["warnings"])
    assert "precompile" not in published["artifacts"]


def test_profile_travels_and_may_be_switched_off(processes: Processes, tmp_path: Path) -> None:
    """A profile of dynamic shapes is carried; where profiles are off, the rest is loaded without it."""
    url = str(tmp_path / "store")
    *_, published = processes.run(
        JOB,
        step("run", model="inference", rows=8),
        step("run", model="inference", rows=9),
        step("publish", url=url),
    )
    assert published["artifacts"]["pgo"] >= 1
    _, everything = processes.run(JOB, step("warm", url=url))
    assert everything["info"]["pgo"] == published["artifacts"]["pgo"]
    *_, without = processes.run(
        JOB,
        step("configure", name="_dynamo.config.automatic_dynamic_local_pgo", value=False),
        step("warm", url=url),
    )
    assert without["status"] == "loaded"
    assert "pgo" not in without["info"]
    assert without["info"]["inductor"] == published["artifacts"]["inductor"]


def test_late_warm_start_is_told(processes: Processes, tmp_path: Path) -> None:
    """A warm start after the first compilation loads, and warns that what is compiled stays."""
    url = str(tmp_path / "store")
    *_, warmed = processes.run(step("run", model="doubling"), step("publish", url=url), step("warm", url=url))
    assert warmed["status"] == "loaded"
    assert any("compiled before" in warning for warning in warmed["warnings"])


@pytest.mark.parametrize("backward", [True, False])
def test_graph_without_its_backward_is_told(processes: Processes, tmp_path: Path, backward: bool) -> None:
    """A graph that needs gradients and has had no backward has no AOTAutograd entry: a warning ends in what to do."""
    _, published = processes.run(
        step("run", model="training", backward=backward), step("publish", url=str(tmp_path / "store"))
    )
    told = [warning for warning in published["warnings"] if "AOTAutograd" in warning]
    assert len(told) == (not backward)
    assert all(one.endswith("or, for inference, wrap the calls in `with torch.no_grad():`") for one in told)


def test_moved_cache_folder_is_told(processes: Processes, tmp_path: Path) -> None:
    """A cache folder that changed between warm start and publication is a warning, for what was loaded did not hit."""
    url = str(tmp_path / "store")
    *_, published = processes.run(
        step("warm", url=url),
        step("start_afresh", folder=str(processes.new_folder())),
        step("run", model="doubling"),
        step("publish", url=url),
    )
    assert any("cache folder has changed" in warning for warning in published["warnings"])


def test_profile_does_not_make_every_start_publish(processes: Processes, tmp_path: Path) -> None:
    """A warm process that found all its graphs has nothing to publish, although its profile has moved on."""
    url = str(tmp_path / "store")
    steps = (step("run", model="inference", rows=8), step("run", model="inference", rows=9))
    *_, published = processes.run(JOB, *steps, step("publish", url=url))
    assert published["artifacts"]["pgo"] == 1
    for _ in range(2):
        _, _, *ran, again = processes.run(JOB, step("warm", url=url), *steps, step("publish", url=url))
        assert sum(answer["fx_miss"] for answer in ran) == 0
        assert again["status"] == "unchanged"


def test_handler_of_a_signal_publishes_what_it_interrupts(tmp_path: Path) -> None:
    """A handler, which may end the process, does not wait for the publication that waits for it, or for its turn."""
    done = run_code(INTERRUPTED, str(tmp_path))
    assert (done.returncode, done.stdout) == (0, "published duplicate False True\n"), done.stderr[-2000:]


@pytest.mark.parametrize("verb", ["warm", "publish", "explain"])
@pytest.mark.parametrize("fault", [MemoryError(), OSError(28, "full"), DeprecationWarning("old"), ZeroDivisionError()])
def test_what_nobody_foresaw_is_a_result(
    fault: Exception, verb: str, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The program goes on; with `strict` it gets an exception of megacache that tells the original as its cause."""

    def fail(*_: object) -> None:
        raise fault

    compiler.compile(artifact())
    monkeypatch.setattr("megacache._cache.call.Call.open_store", fail)
    result = getattr(Cache(tmp_path), verb)()
    assert (result.status, bool(result.reason)) == ("unavailable", True)
    with pytest.raises(MegacacheError) as raised:
        getattr(Cache(tmp_path, strict=True), verb)()
    assert type(fault).__name__ in str(raised.value.__cause__)


@pytest.mark.parametrize("verb", ["warm", "publish", "explain"])
def test_key_that_cannot_be_read_does_not_outlast_the_deadline(verb: str, compiler: Compiler, tmp_path: Path) -> None:
    """A key's file may be a pipe into which nobody writes, or lie on a mount that hangs."""
    key = tmp_path / "key"
    os.mkfifo(key)
    compiler.compile(artifact())
    cache = Cache(tmp_path / "store", trusted_keys=[key], sign_with=key)
    result = getattr(cache, verb)(timeout=1)
    os.close(os.open(key, os.O_WRONLY | os.O_NONBLOCK))  # ends what still waits for the pipe
    finish_workers()
    assert result.status == "unavailable"
    assert "not done within 1 s while" in result.reason
    assert "key" in result.reason
