"""A process has one session for each cache it uses, and a fork keeps nobody's lock."""

import subprocess
import sys
import threading
import uuid
from collections.abc import Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest

from megacache._bundle import Artifact, identify_artifact
from megacache._cache.session import Session, _models_of, loaded_artifacts, session
from megacache._compiler.roots import Root
from megacache._runtime import Deadline
from megacache.errors import (
    AccessError,
    DeadlineError,
    FormatError,
    MegacacheError,
    MissingError,
    UnavailableError,
    UntrustedError,
)
from tests.kit.builders import artifact, bundle

FORK = """
import os, sys, threading
from megacache._runtime import Deadline
from megacache._cache.session import session

known = session("memory://x", None)
known.cover((), ["kept"])
held, done = threading.Event(), threading.Event()
def publish():
    with known.publishing(Deadline.after(60)):
        held.set()
        done.wait()
thread = threading.Thread(target=publish)
thread.start()
held.wait()
child = os.fork()
if not child:
    with session("memory://x", None).publishing(Deadline.after(5)):
        os._exit(0 if known.bundles == {"kept"} else 3)
_, status = os.waitpid(child, 0)
try:
    known.publishing(Deadline.after(0.01)).__enter__()
except Exception as error:
    print(type(error).__name__)
done.set()
thread.join()
sys.exit(os.waitstatus_to_exitcode(status))
"""


def url() -> str:
    """Name a cache that no other test uses."""
    return f"memory://{uuid.uuid4().hex}"


def test_one_cache_has_one_session() -> None:
    """The same URL and options give the same session, whatever the order of the options; none are no options."""
    here = url()
    assert session(here, {"a": 1, "b": "x"}) is session(here, {"b": "x", "a": 1})
    assert session(here, None) is session(here, {})


@pytest.mark.parametrize(
    "options", [None, {"endpoint_url": "http://two"}, {"key": "http://one"}, {"endpoint_url": 1}], ids=repr
)
def test_other_options_are_another_cache(options: dict[str, object] | None) -> None:
    """The same URL at another endpoint is another cache: what one holds says nothing about the other."""
    here = url()
    assert session(here, {"endpoint_url": "http://one"}) is not session(here, options)


def test_other_url_is_another_cache() -> None:
    """Two URLs have two sessions."""
    assert session(url(), None) is not session(url(), None)


def test_threads_get_the_same_session() -> None:
    """Threads that ask at the same moment share one session."""
    here, meeting = url(), threading.Barrier(16)
    found: list[Session] = []

    def ask() -> None:
        meeting.wait(60)
        found.append(session(here, None))

    threads = [threading.Thread(target=ask) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len({id(one) for one in found}) == 1
    assert len(found) == 16


def test_loaded_bundle_is_known_with_all_it_holds() -> None:
    """After a bundle was loaded, its artifacts need no publication, and it is a parent of the next one."""
    known, manifest = Session(), bundle([artifact("a"), artifact("b")]).manifest
    known.cover(manifest.artifacts, [manifest.bundle])
    assert known._artifacts == set(manifest.artifacts)
    assert known.bundles == {manifest.bundle}
    assert known.unusable == set()


def test_what_is_held_adds_up() -> None:
    """What is found to be in the store is added to what was known."""
    known = Session()
    known.cover([identify_artifact(artifact("a"))], ["x"])
    known.cover([identify_artifact(artifact("b"))], ["x", "y"])
    assert known._artifacts == {identify_artifact(artifact("a")), identify_artifact(artifact("b"))}
    assert known.bundles == {"x", "y"}


@pytest.mark.parametrize(
    ("fault", "unusable"),
    [
        (FormatError("no"), True),
        (UntrustedError("no"), True),
        (MissingError("gone"), True),
        (UnavailableError("busy"), False),
        (DeadlineError("late"), False),
        (AccessError("refused"), False),
    ],
    ids=repr,
)
def test_bundle_is_not_blamed_for_its_store(fault: MegacacheError, unusable: bool) -> None:
    """A bundle that failed is unusable from then on, unless it was the store that failed."""
    known = Session()
    known.give_up("x", fault)
    assert known.unusable == ({"x"} if unusable else set())


def test_one_publication_at_a_time() -> None:
    """While one publishes another waits, until its own deadline; then the next may, also after an exception."""
    known = Session()

    def wait_in_vain() -> None:
        with pytest.raises(DeadlineError, match="another publication"), known.publishing(Deadline.after(0.01)):
            pass

    def publish() -> None:
        with known.publishing(Deadline.after(60)), ThreadPoolExecutor() as other:
            other.submit(wait_in_vain).result()
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        publish()
    with known.publishing(Deadline.after(60)), ThreadPoolExecutor() as other:
        other.submit(wait_in_vain).result()


def test_fork_releases_the_lock() -> None:
    """A child forked while a thread publishes can publish and knows what its parent knew; the parent keeps its lock."""
    ended = subprocess.run([sys.executable, "-c", FORK], capture_output=True, text=True, timeout=120, check=False)
    assert (ended.returncode, ended.stdout) == (0, "DeadlineError\n"), ended.stderr


def test_newer_profile_alone_is_no_news() -> None:
    """A profile that has changed since is published with new graphs, and not for its own sake."""
    known = Session()
    before, after = (identify_artifact(Artifact(kind="pgo", key="job", content=state)) for state in (b"1", b"2"))
    graph = identify_artifact(artifact("a"))
    assert known.news([before]) == {before}
    known.cover([before], ["x"])
    assert known.news([before]) == known.news([before, after]) == set()
    assert known.news([after, graph]) == {after, graph}


def test_renewed_credentials_are_the_same_session() -> None:
    """A token that is renewed while the process runs changes nothing; another endpoint does."""
    first = {"key": "a", "token": "1", "client_kwargs": {"endpoint_url": "http://one"}}
    assert session("s3://renewed", first) is session("s3://renewed", first | {"key": "b", "token": "2"})
    assert session("s3://renewed", first) is not session(
        "s3://renewed", {"client_kwargs": {"endpoint_url": "http://two"}}
    )


def test_what_was_loaded_is_known_across_caches() -> None:
    """What a process loaded is the union over its caches, without what it only published or found there."""
    one, other = session(url(), None), session(url(), None)
    refs = [identify_artifact(artifact(key)) for key in ("loaded-1", "loaded-2", "published")]
    one.load("x", refs[:1], ())
    other.load("x", refs[:2], ())
    other.cover(refs, ["x"])
    assert loaded_artifacts() >= set(refs[:2])
    assert refs[2] not in loaded_artifacts()


def test_program_that_counts_in_another_way_costs_no_publication(tmp_path: Path) -> None:
    """What vLLM counts by is its own: the receipt lacks that, and nothing fails."""

    def fail(_: Collection[str]) -> NoReturn:
        raise RuntimeError

    assert _models_of(Root(name="vllm", folder=tmp_path, facts={}, used=tuple, models=fail), ()) is None
