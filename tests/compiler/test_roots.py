"""Roots that are registered add folders, rules and facts of their own, and change nothing for others."""

from pathlib import Path

import pytest

from megacache._bundle import CompiledFile, identify_file, is_portable_file
from megacache._cache.recording import Found
from megacache._compiler import Located, restore, roots
from megacache._compiler.roots import Root
from megacache.errors import UntrustedError


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Root:
    """Register a root for one test."""
    rules = {"inductor": frozenset[str](), "engine": frozenset({"", ".py"})}
    monkeypatch.setattr("megacache._bundle.files.PROGRAM_SUFFIXES", rules)
    root = Root(
        name="engine",
        folder=tmp_path / "engine",
        facts={"engine": "1.0"},
        telling=frozenset({"index.py"}),
        used=lambda: (),
    )
    roots.register(root)
    return root


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize("path", ["a/rank_0_0/model", "a/b/index.py", "a/b.so"])
def test_rule_is_that_of_the_root(path: str) -> None:
    """What one root allows is refused under another one, and files that travel anywhere are allowed in both."""
    assert is_portable_file(path, "engine")
    assert is_portable_file(path, "inductor") == path.endswith(".so")


@pytest.mark.usefixtures("root")
@pytest.mark.parametrize(
    "path",
    ["../model", "/model", "a/../model", "a//model", ".model", "a/.hidden/model", "a/b.sh", "a/" * 8 + "model", ""],
)
def test_no_root_lets_a_path_out(path: str) -> None:
    """No path leads out of a root, is hidden, or lies deeper than a compiler's folders."""
    assert not is_portable_file(path, "engine")
    with pytest.raises(UntrustedError):
        restore(CompiledFile(root="engine", path=path, mode=0o644, content=b""), Path("/nonexistent"))


def test_files_that_tell_the_folder_are_moved(root: Root, tmp_path: Path) -> None:
    """A file in which the folder is written names the folder that it is restored to; any other stays as it is."""
    root.folder.mkdir()
    for name in ("index.py", "other.py"):
        (root.folder / name).write_text(f"{{'path': '{root.folder}/model'}}")
        found = Located(root="engine", path=name, folder=root.folder).read()
        assert found is not None
        assert restore(found, tmp_path / "there")
    assert (tmp_path / "there" / "index.py").read_text() == f"{{'path': '{tmp_path}/there/model'}}"
    assert (tmp_path / "there" / "other.py").read_text() == f"{{'path': '{root.folder}/model'}}"


@pytest.mark.usefixtures("root")
def test_facts_guard_the_files_of_their_root_alone() -> None:
    """The facts of a root are added where its files are concerned; unknown roots have none."""
    assert roots.guard({"a": "b"}, ["inductor", "engine"]) == {"a": "b", "engine": "1.0"}
    assert roots.guard({"a": "b"}, ["inductor", "unknown"]) == {"a": "b"}


@pytest.mark.usefixtures("root")
def test_files_of_a_root_make_a_bundle_of_their_own() -> None:
    """Files of a registered root are in a bundle apart, and none is lost."""
    files = {
        identify_file(file): file
        for file in (
            CompiledFile(root=root, path=path, mode=0o644, content=b"1")
            for root, path in [("inductor", "a.so"), ("engine", "model"), ("triton", "b.json")]
        )
    }
    parts = list(Found(files=files).bundles())
    assert [sorted(ref.root for ref in part.files) for part in parts] == [["inductor", "triton"], ["engine"]]
    assert list(Found().bundles()) == []
