"""Hostile input is refused before PyTorch sees a byte of it.

Each sentence that the README says of what is checked has its tests here, with inputs that nobody chose; the corpus has
those that somebody did, and `nox -s fuzz` makes a million more.
"""

import os
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from megacache import _compiler
from megacache._bundle import (
    Artifact,
    ArtifactRef,
    FileRef,
    FilesPart,
    identify_artifact,
    is_known_artifact,
    refusal,
)
from megacache._bundle.artifacts import KINDS
from megacache._cache.crash_guard import Markers
from megacache._compiler import remove
from megacache.errors import UntrustedError
from tests.corpus.make import MEMBERS
from tests.corpus.stores import HERE
from tests.fuzz.mutations import STRANGE, changed
from tests.fuzz.readers import MANIFEST, MARKER, READERS, SUSPECT, TRAPS, accused, is_inside
from tests.kit.builders import UNHURRIED, any_text, compiled_file, open_store, upload
from tests.kit.builders import bundle as made
from tests.kit.processes import run_code
from tests.kit.without_torch import WatchedFolder, warm

FEW = settings(UNHURRIED, max_examples=60)
SMOKE = 2_000
HARMLESS = ("ab", "x.so", "x.py", "__grp__x.json", "kept", "file", "pipe", "dangling.so", "-rf")
HARMFUL = (
    "linked",
    "loop",
    "..",
    ".",
    "",
    "/",
    "~",
    "\0",
    "\n",
    "é",
    "$HOME",
    "a" * 256,
    "C:",
    "\\",
    "CON",
    ".x",
    "x.so.lock",
)
pieces = st.sampled_from([*HARMLESS, *HARMFUL])
paths = st.one_of(st.lists(pieces, min_size=1, max_size=9).map("/".join), any_text)
keys = st.one_of(paths, st.text("abcf0/.-_ :", max_size=300), st.sampled_from([s for s in STRANGE if type(s) is str]))


# No exception but a MegacacheError, whatever the bytes are.


@pytest.mark.parametrize("name", READERS)
def test_two_thousand_changes_raise_nothing_else(name: str) -> None:
    """Of changed documents each reader takes some and refuses the others, and does nothing else."""
    reader, rng = READERS[name], random.Random(name)
    assert all(map(reader.accepts, reader.seeds))
    taken = 0
    for _ in range(SMOKE // len(READERS)):
        data = rng.choice(reader.seeds)
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = changed(data, rng)
        taken += reader.accepts(data)
    assert taken < SMOKE


def test_marker_that_is_changed_accuses_at_first() -> None:
    """The marker from which the changes begin accuses all that it names, so that they reach the whole reader."""
    assert accused(MARKER) == (SUSPECT,)


@pytest.mark.parametrize("name", READERS)
@FEW
@given(st.data())
def test_any_bytes_raise_nothing_else(name: str, data: st.DataObject) -> None:
    """Bytes that were never a document are refused as well, alone and after a right beginning."""
    beginning = data.draw(st.sampled_from(READERS[name].seeds))
    rest = data.draw(st.binary(max_size=60))
    READERS[name].accepts(rest)
    READERS[name].accepts(beginning[: data.draw(st.integers(0, len(beginning)))] + rest)


# Kinds from an allow-list, and keys of a known shape.


@FEW
@given(st.one_of(st.sampled_from([*sorted(KINDS), "precompile"]), any_text), keys)
def test_manifest_with_a_strange_artifact_is_refused(kind: str, key: str) -> None:
    """An artifact passes if its kind is one of four and its key a name, which its manifest tells already."""
    shape = {
        "inductor": r"[\w-]{1,128}",
        "aot_autograd": r"[\w-]{1,128}",
        "autotune": r"[\w-]{1,128}/[\w-]{1,128}\.best_config",
        "pgo": r"[ -~]{1,235}",
    }.get(kind, "(?!)")
    ref = ArtifactRef(kind=kind, key=key, digest=MANIFEST.artifacts[0].digest, size=1)
    fine = re.fullmatch(shape, key, re.ASCII) is not None
    assert (refusal(replace(MANIFEST, artifacts=(ref,))) is None) == fine == is_known_artifact(kind, key)


@FEW
@given(st.sampled_from(sorted(KINDS)), keys.filter(lambda key: any(is_known_artifact(kind, key) for kind in KINDS)))
def test_known_key_stays_in_the_cache_folder(kind: str, key: str) -> None:
    """PyTorch itself makes a path below its own folder of every key that passes."""
    if is_known_artifact(kind, key):
        folder = os.path.realpath(_compiler.cache_folder())
        assert os.path.realpath(path_of(kind, key)).startswith(f"{folder}{os.sep}")
        assert len(Path(path_of(kind, key)).name) < 256


def path_of(kind: str, key: str) -> str:
    """Ask PyTorch where it keeps an artifact."""
    from torch._dynamo.pgo import code_state_path
    from torch._functorch._aot_autograd.autograd_cache import AOTAutogradCache
    from torch._inductor.codecache import FxGraphCache

    if kind == "pgo":
        return str(code_state_path(key))
    if kind == "autotune":
        return os.path.join(_compiler.cache_folder(), key)  # noqa: PTH118 - as AutotuneCacheArtifact does
    owner = FxGraphCache if kind == "inductor" else AOTAutogradCache
    return str(owner._get_tmp_dir_for_key(key))


# Paths inside their roots: no absolute, no dots, no NUL, no link, no device, not too long.


@settings(UNHURRIED, max_examples=300)
@given(paths, st.integers(0, 0o7777), st.binary(max_size=20))
def test_no_file_leaves_its_root(path: str, mode: int, content: bytes) -> None:
    """Whatever its path and mode are, a file lies under its root as a plain file, or nowhere."""
    with TRAPS:
        TRAPS.restore(compiled_file(path, content, mode=mode))


@FEW
@given(paths)
def test_manifest_with_a_strange_file_is_refused(path: str) -> None:
    """A manifest whose files all pass names no path that leads elsewhere."""
    ref = FileRef(root="inductor", path=path, digest=MANIFEST.artifacts[0].digest, size=1, mode=0o644)
    found = refusal(replace(MANIFEST, files=FilesPart(index=(ref,))))
    assert isinstance(found, UntrustedError) or is_inside(path)


@FEW
@given(paths)
def test_nothing_outside_is_removed(path: str) -> None:
    """What is removed because a process died lies under its root, and not behind a link."""
    victim = TRAPS.outside / "x.so"
    victim.touch()
    try:
        if "kept" not in path and "dangling" not in path:
            remove("inductor", path, TRAPS.root)
    except (OSError, UntrustedError):
        pass
    finally:
        victim.unlink()  # raises if it is gone


def test_link_to_itself_is_no_way(watched_place: WatchedFolder) -> None:
    """A folder that is a link to itself costs its files and nothing else."""
    (watched_place.root / "ab").symlink_to("ab")
    store = open_store()
    upload(store, made([Artifact(kind="pgo", key="k", content=b"")], files=[compiled_file()], here=HERE))
    result = warm(store, watched_place)
    assert (result.status, result.files, len(watched_place.loaded)) == ("loaded", 0, 1)
    assert "symbolic link" in result.warnings[0]


@pytest.mark.parametrize("key", ["..", ".", "", "../..", "/", "a/b", "a\0b"])
def test_marker_cannot_make_pytorch_forget_everything(
    key: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A key that is no name removes nothing, whoever asks: `..` would be the whole cache folder."""
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    for folder in ("fxgraph", "aotautograd"):
        (tmp_path / folder / "kept").mkdir(parents=True)
    before = sorted(tmp_path.rglob("*"))
    _compiler.forget([(kind, key) for kind in (*KINDS, "precompile")])
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("forget", [_compiler.forget, _compiler.forget_exactly])
@pytest.mark.parametrize("link", ["fxgraph", "fxgraph/bc", "fxgraph/bc/abcd"])
def test_nothing_behind_a_link_is_forgotten(
    link: str, forget: Callable[[Iterable[Any]], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of PyTorch's cache that leads elsewhere costs nothing there."""
    cache, elsewhere = tmp_path / "cache", tmp_path / "elsewhere"
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(cache))
    graph = elsewhere / "fxgraph/bc/abcd/graph"
    graph.parent.mkdir(parents=True)
    graph.write_bytes(b"graph")
    (cache / link).parent.mkdir(parents=True)
    (cache / link).symlink_to(elsewhere / link)
    artifact = Artifact(kind="inductor", key="abcd", content=b"graph")
    forget([(artifact.kind, artifact.key)] if forget is _compiler.forget else [identify_artifact(artifact)])
    assert graph.exists()


def test_marker_that_is_no_file_is_passed_over(tmp_path: Path) -> None:
    """Neither a pipe, nor a link, nor a device, nor nesting without end in the place of a marker holds a start up."""
    pipe, zero, folder, deep = (tmp_path / f"{number:032x}.json" for number in range(4))
    os.mkfifo(pipe)
    zero.symlink_to("/dev/zero")
    folder.mkdir()
    deep.write_bytes(b"[" * 100_000)
    assert Markers(tmp_path).deaths().suspects == {}


# No type drives an import.

IMPORTS = """
import sys
from tests.corpus.make import MEMBERS, read
from tests.fuzz.readers import READERS
for reader in READERS.values():
    for seed in reader.seeds:
        reader.accepts(seed)
corpus = [data for name in MEMBERS for data in read(name).values()]
first = set(sys.modules)
for data in corpus:
    for reader in READERS.values():
        reader.accepts(data)
print(sorted(set(sys.modules) - first), "torch" in sys.modules)
"""


def test_nothing_is_imported_for_what_is_read() -> None:
    """Reading the whole corpus by every reader imports no module that sound documents do not need, and no torch."""
    done = run_code(IMPORTS)
    assert done.stdout == "[] False\n", done.stderr[-2_000:]
    assert len(MEMBERS) > 60
