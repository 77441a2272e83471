"""Files of a program that guards them by settings of its own, such as vLLM: which bundle serves, and what is said."""

from collections.abc import Collection, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from megacache import _compiler
from megacache._bundle import Digest
from megacache._cache.cache_folder import CacheFolder
from megacache._cache.compiled_files import Restoration
from megacache._cache.crash_guard import CrashGuard
from megacache._cache.explain.misses import Explaining
from megacache._cache.results import WarmResult, WarmStatus
from megacache._cache.session import Session
from megacache._cache.warm import Warming
from megacache._catalog import Places
from megacache._compiler.roots import Root, register
from megacache._runtime import Deadline
from megacache._runtime.process import forget
from megacache._store import Store
from tests.kit.builders import Bundle, bundle, call_on, compiled_file, environment, open_store, upload

MODEL, OTHER_RANK = "0123/rank_0_0/model", "0123/rank_1_0/model"
OWN_GUARD = {"vllm": "1", "VLLM_SWITCH": "1", "lora_config.max_loras": "2"}


@pytest.fixture(autouse=True)
def program(tmp_path: Path) -> Iterator[Root]:
    """Run a program for the length of a test, as its rank 0."""

    def concerns(paths: Collection[str]) -> bool:
        return any("rank_0_0" in path for path in paths)

    forget()
    root = Root(name="vllm", folder=tmp_path / "vllm", facts=OWN_GUARD, used=tuple, concerns=concerns)
    register(root)
    yield root
    forget()


@pytest.fixture(scope="module")
def common() -> dict[str, str]:
    """Give the facts of every compiled file here."""
    return dict(_compiler.toolchain())


def held(
    common: dict[str, str], *, path: str = MODEL, content: bytes = b"model", parents: tuple[str, ...] = (), **own: str
) -> Bundle:
    """Make a bundle with a file of the program, published with some of its settings."""
    guard = {**common, **OWN_GUARD, **{name.replace("__", "."): value for name, value in own.items()}}
    file = replace(compiled_file(path, content), root="vllm")
    return bundle(files=[file], guard={name: value for name, value in guard.items() if value}, parents=parents)


class Host:
    """A host whose folders outlive its processes."""

    def __init__(self, folder: Path, store: Store) -> None:
        self.guard = CrashGuard(folder / "starts")
        self.store = store
        self.session = Session()

    def start(self) -> WarmResult:
        """Warm a new process."""
        self.session = Session()
        verb = call_on(self.store)
        folder = CacheFolder(verb, self.guard)
        folder.begin(files=True)
        warming = Warming(verb, Places.only(self.store), environment(), self.session, folder)
        warming.fetch()
        return warming.load(self.store.deadline)


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """Give a host and an empty store."""
    return Host(tmp_path, open_store())


def test_what_fits_is_restored_in_silence(host: Host, common: dict[str, str], program: Root) -> None:
    """Bundles of other settings say nothing where one of these settings is published."""
    upload(host.store, held(common), held(common, VLLM_SWITCH="2"))
    result = host.start()
    assert (result.status, result.files, result.warnings) == (WarmStatus.LOADED, 1, ())
    assert (program.folder / MODEL).read_bytes() == b"model"
    assert host.session.restored == {("vllm", MODEL)}


def test_one_warning_names_the_nearest(host: Host, common: dict[str, str], program: Root) -> None:
    """Where none fits, one warning tells how the nearest one differs, with both values, and nothing is fetched."""
    near = held(common, VLLM_SWITCH="2")
    upload(host.store, held(common, VLLM_SWITCH="3", lora_config__max_loras="9"), near)
    result = host.start()
    told = f"the nearest, {near.manifest.bundle}, differs: VLLM_SWITCH is 1 here, 2 there"
    assert result.status is WarmStatus.MISS
    assert result.warnings == (f"none of 2 bundles with files of vllm fits here; {told}",)
    assert told in result.reason
    assert result.bytes_stored == 0
    assert not program.folder.exists()


def test_bundle_from_before_does_not_fit(host: Host, common: dict[str, str]) -> None:
    """A bundle that tells only the version of the program is not used."""
    upload(host.store, held(common, VLLM_SWITCH="", lora_config__max_loras=""))
    (warning,) = host.start().warnings
    assert warning.endswith("VLLM_SWITCH is 1 here, unset there; lora_config.max_loras is 2 here, unset there")


def test_bundles_of_other_ranks_are_not_needed(common: dict[str, str]) -> None:
    """A rank that needs no bundle of another one votes for it, if it has its own whole, and says nothing of it."""
    own, others, none = (held(common), held(common, path=OTHER_RANK, VLLM_SWITCH="2"), held(common, VLLM_SWITCH="2"))

    def voted(*bundles: Bundle, lacks: Collection[Bundle] = ()) -> Collection[str]:
        restoration = Restoration()
        restoration.begin(None, Deadline.after(60), wanted=True)
        for one in bundles:
            restoration.wants(one.manifest)
        not_needed = restoration.not_needed([one.manifest.bundle for one in bundles if one not in lacks])
        restoration.finish()
        assert len(restoration.warnings) == (none in bundles)
        return not_needed

    assert voted(others) == frozenset()
    assert voted(others, none) == frozenset()
    assert voted(own, others) == {others.manifest.bundle}
    assert voted(own, others, lacks=[own]) == frozenset()


def test_child_takes_the_place_of_its_parent(host: Host, common: dict[str, str], program: Root) -> None:
    """Who published a file that its parent has had, could not use that one; what lay there before the start stays."""
    parent = held(common, content=b"of the parent")
    child = held(common, content=b"of the child", parents=(parent.manifest.bundle,))
    upload(host.store, child, parent)
    host.start()
    assert (program.folder / MODEL).read_bytes() == b"of the child"
    (program.folder / MODEL).write_bytes(b"the program's own")
    host.start()
    assert (program.folder / MODEL).read_bytes() == b"the program's own"


def test_what_failed_is_left_out(host: Host, common: dict[str, str]) -> None:
    """The next start of this host leaves out what failed, once and for all; what replaces it may be published once."""
    one, two = held(common), held(common, path="4567/rank_0_0/model")
    upload(host.store, one, two)
    host.start()
    blamed = [suspect.bundle for suspect in host.guard.holding("vllm", {MODEL: Digest.of(b"model")})]
    assert blamed == [one.manifest.bundle]
    host.guard.notes.note_failure(one.manifest.bundle)
    for _ in range(2):
        result = host.start()
        assert result.bundles == (two.manifest.bundle,)
        assert "a program on this host could not use what it holds" in result.warnings[0]
        assert f"megacache quarantine {host.store.url} {one.manifest.bundle}" in result.warnings[0]
    assert host.session.unusable == {one.manifest.bundle}
    host.guard.notes.note_failure(two.manifest.bundle)
    assert host.start().status is WarmStatus.MISS
    assert (host.session.unusable, len(host.session.files)) == (frozenset(), 2)


def test_explain_names_the_settings(host: Host, common: dict[str, str]) -> None:
    """A process that runs the program is told which of its settings differs, with both values."""

    def explained() -> str:
        return str(Explaining(Places.only(host.store), environment(), Session(), []).run())

    upload(host.store, held(common, path=OTHER_RANK), held(common, VLLM_SWITCH="2"))
    told = explained()
    assert told.startswith("files: none of 1 bundle with files of vllm fits here; the nearest, ")
    assert "\n  VLLM_SWITCH is 1 here, 2 there" in told
    upload(host.store, held(common))
    assert explained().startswith("empty: ")
