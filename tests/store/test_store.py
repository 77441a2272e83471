"""One suite of conformance for every kind of store."""

import re
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import fsspec
import pytest

from megacache._runtime import Deadline
from megacache._store import Entry, Store
from megacache._store.scope import scope_of
from megacache.errors import AccessError, DeadlineError, MissingError, SettingsError, UnavailableError
from tests.kit.builders import open_store
from tests.kit.processes import REPOSITORY
from tests.kit.servers import Server, azurite, free_port
from tests.kit.servers.moto import MotoServer

KINDS = ("file", "memory", "dir", "copies", "moto", "unconditional", "refusing", "radosgw", "gcs", "azure")
SERVERS = {
    "moto": "moto_s3",
    "radosgw": "radosgw_server",
    "gcs": "gcs_server",
    "azure": "azure_server",
    "unconditional": "unconditional_server",
    "refusing": "refusing_server",
}
WRITERS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Location:
    """Where a store is."""

    url: str
    storage_options: Mapping[str, Any]
    exclusive: bool
    """True if what is behind the URL honours a conditional create."""

    def open(self, seconds: float = 60.0) -> Store:
        """Open it, as a process of its own would."""
        return Store.open(self.url, storage_options=self.storage_options, deadline=Deadline.after(seconds))


def _server(kind: str, request: pytest.FixtureRequest) -> Server:
    found: Server = request.getfixturevalue(SERVERS[kind])
    return found


@pytest.fixture(params=KINDS)
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Location:
    """Choose an empty prefix in one kind of store."""
    kind, name = request.param, uuid.uuid4().hex
    if kind == "file":
        return Location(url=f"{tmp_path}/{name}", storage_options={}, exclusive=True)
    if kind == "memory":
        return Location(url=f"memory://{name}/cache", storage_options={}, exclusive=True)
    if kind == "dir":
        (tmp_path / name).mkdir()
        return Location(url=f"dir::file://{tmp_path}/{name}", storage_options={}, exclusive=False)
    server = _server("moto" if kind == "copies" else kind, request)
    if kind == "copies":
        options = {"s3": server.storage_options, "simplecache": {"cache_storage": f"{tmp_path}/copies"}}
        return Location(url=f"simplecache::{server.url}/{name}/cache", storage_options=options, exclusive=True)
    return Location(
        url=f"{server.url}/{name}/cache", storage_options=server.storage_options, exclusive=server.creates_if_absent
    )


def test_what_is_created_is_read_and_listed(place: Location) -> None:
    """An object is found by another client under its name, whole and with its size."""
    assert place.open().create("a/bundles/one", b"x" * 1000) is True
    assert place.open().read("a/bundles/one", size=1000) == b"x" * 1000
    assert place.open().list("a/bundles") == (Entry(key="one", size=1000),)


def test_listing_tells_when_objects_were_written(place: Location) -> None:
    """The clock of a store is that of this machine here."""
    before = time.time()
    place.open().create("a/one", b"1")
    (entry,) = place.open().list()
    assert entry.modified is not None
    assert before - 2 < entry.modified < time.time() + 2


def test_object_tells_its_age(place: Location) -> None:
    """An object that has just been written is young, and one that is not there has no age."""
    place.open().create("a/one", b"1")
    age = place.open().age("a/one")
    assert age is not None
    assert -2 < age < 60
    assert place.open().age("a/nothing") is None


def test_place_beside(place: Location) -> None:
    """What lies beside a place is read and listed there, and is no part of it."""
    store = place.open()
    beside = store.beside(".receipts")
    beside.create("a/one", b"1")
    store.create("a/two", b"2")
    assert beside.url == f"{store.url}.receipts"
    assert [one.key for one in place.open().beside(".receipts").list()] == ["a/one"]
    assert [one.key for one in place.open().list()] == ["a/two"]


@pytest.mark.parametrize("url", ["memory://", "file:///", "s3://bucket"])
def test_nothing_lies_beside_a_whole_filesystem(url: str) -> None:
    """Neither a filesystem nor a bucket has anything beside it."""
    with pytest.raises(SettingsError, match="nothing lies beside"):
        open_store(url).beside(".receipts")


def test_listing_goes_down_and_stays_within_its_folder(place: Location) -> None:
    """A listing holds all that lies below a folder, and nothing of a folder whose name merely begins alike."""
    store = place.open()
    for key in ("a/b/one", "a/b/c/two", "a/bb/three", "z"):
        store.create(key, b"1")
    assert sorted(entry.key for entry in store.list("a/b")) == ["c/two", "one"]
    assert sorted(entry.key for entry in store.list()) == ["a/b/c/two", "a/b/one", "a/bb/three", "z"]


def test_missing_folder_is_empty(place: Location) -> None:
    """A folder that nobody has written to holds nothing, which is no fault."""
    assert place.open().list("a/bundles") == ()
    assert place.open().list() == ()


def test_missing_object_is_told(place: Location) -> None:
    """Reading an object that is not there raises `MissingError`."""
    place.open().create("other", b"1")
    with pytest.raises(MissingError):
        place.open().read("nothing", size=1)


def test_read_is_bounded_by_the_size_asked_for(place: Location) -> None:
    """However large an object has become, no more than what was declared is read."""
    place.open().create("large", b"0123456789" * 100)
    assert place.open().read("large", size=10) == b"0123456789"


def test_second_create_is_refused(place: Location) -> None:
    """An object that exists is left alone, wherever the store can tell."""
    assert place.open().create("once", b"first") is True
    second = place.open().create("once", b"other")
    if place.exclusive or place.url.startswith("dir::"):
        assert second is False
        assert place.open().read("once", size=5) == b"first"
    else:
        assert place.open().read("once", size=5) == b"other"


def test_deleted_object_is_gone(place: Location) -> None:
    """What is deleted is neither listed nor read any more, its neighbour is, and deleting it again is no fault."""
    for key in ("a/one", "a/two"):
        place.open().create(key, b"1")
    place.open().delete("a/one")
    assert place.open().list() == (Entry(key="a/two", size=1),)
    place.open().delete("a/one")
    assert place.open().create("a/one", b"2") is True


@pytest.mark.parametrize("turn", range(2))
def test_race_leaves_one_whole_object(place: Location, turn: int) -> None:
    """Of writers that race, exactly one is told that it created the object, wherever the guarantee is exclusive."""
    contents = [bytes([65 + n]) * 20_000 for n in range(WRITERS)]
    stores = [place.open() for _ in range(WRITERS)]
    created: list[int] = []
    start = threading.Barrier(WRITERS)

    def write(n: int) -> None:
        start.wait()
        if stores[n].create(f"race/{turn}", contents[n]):
            created.append(n)

    threads = [threading.Thread(target=write, args=(n,)) for n in range(WRITERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = place.open().read(f"race/{turn}", size=100_000)
    assert found in contents
    if place.exclusive:
        assert [contents[n] for n in created] == [found]


def test_expired_deadline_stops_every_call(place: Location) -> None:
    """A store whose time is over asks nothing more."""
    store = place.open().within(Deadline(at=0.0, seconds=1.0))
    with pytest.raises(DeadlineError):
        store.list("a")
    with pytest.raises(DeadlineError):
        store.read("a", size=1)
    with pytest.raises(DeadlineError):
        store.create("a", b"1")


@pytest.mark.parametrize("cache", ["simplecache", "filecache", "blockcache", "cached", "simplecache::filecache"])
def test_cache_of_copies_is_passed_by(cache: str, moto_s3: Server, name: str, tmp_path: Path) -> None:
    """What is written before which fsspec would keep copies is at the place itself, and no copies are kept of it."""
    storage = {"cache_storage": f"{tmp_path}/copies"}
    options = {"s3": moto_s3.storage_options, **dict.fromkeys(cache.split("::"), storage)}
    place, bare = f"{cache}::{moto_s3.url}/{name}", f"{moto_s3.url}/{name}"
    store = Store.open(place, storage_options=options, deadline=Deadline.after(60))
    assert store.create("one", b"1") is True
    assert store.create("one", b"2") is False
    behind = Store.open(bare, storage_options=moto_s3.storage_options, deadline=Deadline.after(60))
    assert behind.read("one", size=1) == store.read("one", size=1) == b"1"
    assert behind.list() == store.list() == (Entry(key="one", size=1),)
    assert store.scope == behind.scope
    assert not (tmp_path / "copies").exists()


@pytest.mark.parametrize("kind", ["moto", "radosgw", "gcs", "azure"])
def test_missing_bucket_is_a_fault(kind: str, request: pytest.FixtureRequest) -> None:
    """A bucket that does not exist is told apart from an empty folder, for listing and for creating."""
    server = _server(kind, request)
    url = f"{server.url.partition('://')[0]}://nothing-is-here/cache"
    store = Store.open(url, storage_options=server.storage_options, deadline=Deadline.after(30))
    with pytest.raises(MissingError, match="create the bucket or container"):
        store.list("a/bundles")
    with pytest.raises(MissingError, match="create the bucket or container"):
        store.create("a", b"1")


@pytest.mark.parametrize("kind", ["radosgw", "azure"])
def test_wrong_secret_is_an_access_error(kind: str, request: pytest.FixtureRequest) -> None:
    """A server that checks signatures refuses another secret, and the error says what to look at."""
    server = _server(kind, request)
    told = str(server.storage_options.get("connection_string", ""))
    wrong = {"connection_string": told.replace("Key=Eby", "Key=Abc")} if told else {"secret": "wrong"}
    options = {**server.storage_options, **wrong}
    store = Store.open(f"{server.url}/x", storage_options=options, deadline=Deadline.after(30))
    with pytest.raises(AccessError, match="credentials"):
        store.list("a")
    with pytest.raises(AccessError, match="credentials"):
        store.create("a", b"1")


def test_azure_that_does_not_answer_is_told_in_time() -> None:
    """Where nobody listens, Azure's client gives up well before the deadline, as others do."""
    pytest.importorskip("adlfs")
    options = {"connection_string": azurite.connection_string(free_port())}
    store = Store.open("abfs://container/x", storage_options=options, deadline=Deadline.after(45))
    for ask in (store.list, lambda: store.create("one", b"1"), lambda: store.read("one", size=1)):
        with pytest.raises(UnavailableError, match="Cannot connect"):
            ask()


def test_lost_race_on_s3_is_tried_again(faulty: MotoServer) -> None:
    """S3 answers 409 while another writer creates the same object; a second try settles it."""
    server = faulty.server
    store = Store.open(
        f"{server.url}/{uuid.uuid4().hex}", storage_options=server.storage_options, deadline=Deadline.after(30)
    )
    faulty.fault("PUT .*contended", "409", times=2)
    assert store.create("contended", b"1") is True


def test_dropped_connection_is_unavailable(faulty: MotoServer) -> None:
    """A connection that is closed without an answer is a fault of the store, not of the program."""
    server = faulty.server
    store = Store.open(f"{server.url}/reset", storage_options=server.storage_options, deadline=Deadline.after(30))
    faulty.fault("PUT .*reset", "reset")
    with pytest.raises(UnavailableError):
        store.create("one", b"1")


def test_web_server_that_is_down_is_not_empty() -> None:
    """Where the client would take a refused connection for an empty folder, the store says that it is unavailable."""
    url = f"http://127.0.0.1:{free_port()}/cache"
    with pytest.raises(UnavailableError):
        Store.open(url, storage_options=None, deadline=Deadline.after(30)).list()


NO_RESOLVER = """
import socket, time
socket.getaddrinfo = lambda *_, **__: time.sleep(600)
from megacache._runtime import Deadline
from megacache._store import Store
from megacache.errors import DeadlineError
options = {"endpoint_url": "http://store.example:9000", "key": "key", "secret": "secret"}
store = Store.open("s3://bucket/v1", storage_options=options, deadline=Deadline.after(2))
try:
    store.list()
except DeadlineError:
    print("late")
"""


def test_name_server_that_does_not_answer_keeps_nobody() -> None:
    """A host name that is never resolved costs a call its deadline, and the process ends all the same."""
    command = [sys.executable, "-c", NO_RESOLVER]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, cwd=REPOSITORY, check=True)
    assert done.stdout == "late\n", done.stderr


def test_file_in_the_place_of_a_store_is_told(tmp_path: Path) -> None:
    """A URL that is that of a file holds no cache, and is not taken for an empty one."""
    (tmp_path / "file").touch()
    with pytest.raises(UnavailableError, match="Not a directory"):
        open_store(str(tmp_path / "file")).list()


def test_unknown_protocol_is_a_setting(tmp_path: Path) -> None:
    """A protocol that nothing speaks is the caller's mistake, and the error says which URLs there are."""
    with pytest.raises(SettingsError, match=r"s3://, gs:// or file://"):
        Store.open(f"nonsense://{tmp_path}", storage_options=None, deadline=Deadline.after(5))


def test_password_is_not_shown() -> None:
    """The URL that is shown has neither user nor password."""
    store = Store.open("memory://user:secret@host/x", storage_options=None, deadline=Deadline.after(5))
    assert store.url == "memory://host/x"


@pytest.mark.parametrize(
    ("url", "scope"),
    [
        ("/a/b", "file:///a/b"),
        ("file:///a/b/", "file:///a/b"),
        ("local:///a/b", "file:///a/b"),
        ("file:///a/../a//b/./", "file:///a/b"),
        ("file:///a/what?/b@c", "file:///a/what?/b@c"),
        ("/", "file://"),
        ("memory://a/b", "memory:///a/b"),
        ("memory:///a/b/", "memory:///a/b"),
        ("s3://bucket/v1/", "s3://bucket/v1"),
        ("s3a://bucket/v1", "s3://bucket/v1"),
        ("s3://bucket/a%2Fb", "s3://bucket/a%2Fb"),
        ("gcs://bucket/v1", "gs://bucket/v1"),
        ("webhdfs://one:9870/x", "webhdfs://one:9870/x"),
        ("webhdfs://two:9870/y/../x/", "webhdfs://two:9870/x"),
        ("webhdfs://user:pw@one/x", "webhdfs://one/x"),
        ("https://user:pw@host/x", "http://host/x"),
        ("abfs://container@account.dfs.core.windows.net/v1", "abfs://container@account.dfs.core.windows.net/v1"),
        ("az://container/v1", "abfs://container/v1"),
        ("github://org:repo@v2/caches/flux/", "github://org:repo@v2/caches/flux"),
        ("hf://datasets/org/repo@v2/flux", "hf://datasets/org/repo@v2/flux"),
        ("simplecache::s3://bucket/x", "s3://bucket/x"),
        ("simplecache::gs://bucket/x", "gs://bucket/x"),
        ("filecache::cached::blockcache::s3a://bucket/x", "s3://bucket/x"),
        ("simplecache::/a//b", "file:///a/b"),
        ("dir::memory://x", "dir::memory:///x"),
        ("dir://sub/::memory://x/", "dir://sub::memory:///x"),
        ("zip://a/b::simplecache::https://user:pw@h/z?sig=TOKEN", "zip://a/b::http://h/z"),
    ],
)
def test_place_has_one_name(url: str, scope: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """However its URL is written a place has one name; two places have two, and no name holds a secret."""
    for protocol, stand_in in STAND_INS.items():
        monkeypatch.setitem(import_module("fsspec.registry")._registry, protocol, stand_in)
    assert scope_of(url) == scope


class Azure(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Stands for adlfs, which is not needed to name a place."""

    protocol = "abfs"


class HuggingFace(fsspec.AbstractFileSystem):  # type: ignore[misc]
    """Stands for huggingface_hub."""

    protocol = "hf"


STAND_INS = {"abfs": Azure, "az": Azure, "hf": HuggingFace}


def test_place_of_no_protocol_is_told() -> None:
    """A protocol that nobody speaks has no places, and what is said of it holds no secret."""
    with pytest.raises(SettingsError) as caught:
        scope_of("nobody://user:pw@h/x?sig=TOKEN")
    assert not {"pw", "TOKEN"} & set(re.findall(r"\w+", str(caught.value)))


def test_scope_of_what_is_open_is_that_of_its_url(place: Location) -> None:
    """A store that is open, under another deadline or bound for elsewhere, says for which place it signs."""
    store = place.open()
    assert store.scope == store.within(Deadline.after(1)).scope == scope_of(place.url)
    assert store.bound_for("s3a://bucket/x/").scope == "s3://bucket/x"
