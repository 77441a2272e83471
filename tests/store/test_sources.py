"""Stores that are only read: behind a plain web server, in an archive, on GitHub, on the Hugging Face Hub."""

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import pytest

from megacache._runtime import Deadline
from megacache._store import Entry, Store
from megacache.errors import AccessError, MissingError, UnavailableError
from tests.kit.builders import artifacts, bundle, noise, open_store, upload
from tests.kit.places import copy_all, verdicts
from tests.kit.servers import hubs, web

KINDS = (*web.HEADS, "copies", "zip", "github", "hf")


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """Where a folder can be read."""

    url: str
    options: Mapping[str, Any] = field(default_factory=dict)

    def open(self, below: str = "") -> Store:
        """Open a cache in it, as a process of its own would."""
        return Store.open(self.url.format(below), storage_options=self.options, deadline=Deadline.after(60))


@pytest.fixture(params=KINDS)
def source(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Source]:
    """Put a cache, and a folder of another, where it can only be read."""
    folder = tmp_path / "served"
    upload(open_store(f"{folder}/cache"), bundle(artifacts(3, size=20_000)))
    other = open_store(f"{folder}/other")
    for key, size in (("a/b/one", 1_000), ("a/b/c/two", 2), ("a/bb/three", 3), ("z", 4)):
        other.create(key, noise(size))
    with ExitStack() as served:
        yield _served(request.param, folder, served, monkeypatch)


def _served(kind: str, folder: Path, served: ExitStack, monkeypatch: pytest.MonkeyPatch) -> Source:
    if kind in web.HEADS:
        return Source(url=f"{served.enter_context(web.serve(folder, kind))[0]}/{{}}")
    if kind == "copies":
        return Source(url=f"simplecache::{served.enter_context(web.serve(folder))[0]}/{{}}")
    if kind == "zip":
        return Source(url=f"{kind}://{{}}::{shutil.make_archive(str(folder), kind, folder)}")
    if kind == "github":
        hub = served.enter_context(hubs.serve(folder, hubs.GitHubHandler))
        monkeypatch.setattr("fsspec.implementations.github.GithubFileSystem.url", f"{hub}/trees/{{sha}}")
        monkeypatch.setattr("fsspec.implementations.github.GithubFileSystem.content_url", f"{hub}/contents/{{path}}")
        return Source(url="github://org:caches@main/{}")
    pytest.importorskip("huggingface_hub")
    hub = served.enter_context(hubs.serve(folder, hubs.HuggingFaceHandler))
    return Source(url=f"hf://datasets/{hubs.REPOSITORY}/{{}}", options={"endpoint": hub})


def test_objects_are_listed_with_their_sizes(source: Source) -> None:
    """A listing holds all that lies below a folder with its size, and no link to another order of the same listing."""
    found = source.open("other").list()
    assert sorted((entry.key, entry.size) for entry in found) == [
        ("a/b/c/two", 2),
        ("a/b/one", 1_000),
        ("a/bb/three", 3),
        ("z", 4),
    ]
    assert sorted(entry.key for entry in source.open("other").list("a/b")) == ["c/two", "one"]
    assert source.open("other").list("none") == source.open("none").list() == ()


def test_objects_are_read(source: Source) -> None:
    """An object is read whole, and no further than is asked for; one that is not there is told."""
    store = source.open("other")
    assert store.read("a/b/one", size=1_000) == noise(1_000)
    assert store.read("a/b/one", size=10) == noise(1_000)[:10]
    with pytest.raises(MissingError):
        store.read("a/b/none", size=1)


def test_cache_is_sound_and_can_be_pulled(source: Source, tmp_path: Path) -> None:
    """What was published is found whole, and a copy of it is equal."""
    store, target = source.open("cache"), open_store(f"{tmp_path}/target")
    assert [verdict.faults for verdict in verdicts(store)] == [()]
    done = copy_all(store, target)
    assert (len(done.copied), done.failed) == (1, ())
    assert sorted(target.list(), key=key_of) == sorted(store.list(), key=key_of)


def key_of(entry: Entry) -> str:
    """Sort by key."""
    return entry.key


def test_nothing_is_written(source: Source) -> None:
    """A publication is refused as one without the right to write is, not to be tried again."""
    with pytest.raises(AccessError):
        source.open("other").create("a/new", b"1")


def test_listing_again_shows_what_has_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No client answers a second listing from what it remembers of the first."""
    upload(open_store(f"{tmp_path}/served/cache"), bundle(artifacts(1)))
    for kind in ("python", "github", "hf"):
        with ExitStack() as served:
            store = _served(kind, tmp_path / "served", served, monkeypatch).open("cache")
            before = store.list()
            open_store(f"{tmp_path}/served/cache").create(kind, b"1")
            assert len(store.list()) == len(before) + 1


def test_endless_answer_is_cut() -> None:
    """A web server that sends more than was asked for, whatever the range, is not listened to any longer."""

    class Endless(web.WebHandler):
        style = "unsized"
        lines: ClassVar[list[str]] = []

        def serve(self, path: str) -> None:
            self.answer(b"")
            with suppress(OSError):
                while path:
                    self.wfile.write(bytes(1 << 20))

    with web.listening(Endless) as url:
        assert open_store(f"{url}/cache").read("one", size=100_000) == bytes(100_000)


def test_sizes_cost_one_request_each(tmp_path: Path) -> None:
    """A web server is asked for each folder and for the size of each object below it, once."""
    upload(open_store(f"{tmp_path}/cache"), bundle(artifacts(3), artifacts(3, seed=1)))
    with web.serve(tmp_path) as (url, lines):
        entries = open_store(f"{url}/cache").list()
    assert len(entries) == 3
    assert len([line for line in lines if line.startswith("HEAD")]) == 3
    assert len([line for line in lines if line.startswith("GET")]) == 5


def test_file_that_vanishes_is_left_out(tmp_path: Path) -> None:
    """What a listing names and is gone before its size is told is no fault; a server that fails is one."""
    for name in ("gone", "one"):
        (tmp_path / name).touch()

    class Losing(web.WebHandler):
        folder = tmp_path
        lines: ClassVar[list[str]] = []
        status = 404

        def serve(self, path: str) -> None:
            if path == "/gone":
                self.answer(b"", self.status)
            else:
                super().serve(path)

    with web.listening(Losing) as url:
        assert [entry.key for entry in open_store(url).list()] == ["one"]
        Losing.status = 503
        with pytest.raises(UnavailableError):
            open_store(url).list()
