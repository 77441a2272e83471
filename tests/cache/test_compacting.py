"""A publication that leaves too many bundles merges them, if it was asked to."""

from pathlib import Path

import pytest

from megacache import Cache, PublishResult
from megacache._catalog import Catalog, Compaction
from megacache._runtime import forget
from megacache.errors import SettingsError, UnavailableError
from tests.kit.builders import artifact, environment, open_store, prefix_of
from tests.kit.torchless import Compiler

PLACE = prefix_of(environment())


def publish(compiler: Compiler, url: object, number: int, above: int | None) -> PublishResult:
    """Publish as a process would that has compiled one graph and never heard of this cache."""
    forget()
    compiler.compile(artifact(f"f{number}", bytes([number]) * 1000))
    return Cache(str(url), compact_above=above).publish()


def visible(folder: Path) -> int:
    """Count the bundles that readers see."""
    return len(Catalog(open_store(str(folder)), PLACE).list().visible)


def test_bundles_are_merged_above_the_number(compiler: Compiler, tmp_path: Path) -> None:
    """Up to it they stay, and without it they always do; the merged one holds all, and nothing is told."""
    counts = []
    for number, above in enumerate([None, 3, 3, 3, None]):
        published = publish(compiler, tmp_path, number, above)
        assert (published.status, published.warnings) == ("published", ())
        counts.append(visible(tmp_path))
    assert counts == [1, 2, 3, 1, 2]
    warmed = compiler.warm(str(tmp_path), {}, 60)
    assert (warmed.status, len(warmed.bundles), len(compiler.loaded)) == ("loaded", 2, 2)


def test_nothing_new_merges_nothing(compiler: Compiler, tmp_path: Path) -> None:
    """Only who adds a bundle pays for it."""
    for number in range(2):
        publish(compiler, tmp_path, number, None)
    assert publish(compiler, tmp_path, 1, 1).status == "covered"
    assert visible(tmp_path) == 2


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (UnavailableError("the store went away"), "the store went away"),
        (MemoryError("no room"), "MemoryError: no room"),
    ],
    ids=["store", "memory"],
)
def test_merge_that_fails_spoils_no_publication(
    fault: Exception, words: str, compiler: Compiler, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is a warning."""

    def fail(*_: object) -> None:
        raise fault

    publish(compiler, tmp_path, 0, None)
    monkeypatch.setattr(Compaction, "plan", fail)
    published = publish(compiler, tmp_path, 1, 1)
    assert published.status == "published"
    assert published.warnings == (f"published, but the bundles were not merged: {words}",)
    assert visible(tmp_path) == 2


def test_place_that_stands_in_is_not_merged(compiler: Compiler, tmp_path: Path) -> None:
    """Nor are copies in a nearer one: what is merged is what was published to."""
    near, last = tmp_path / "near", tmp_path / "last"
    for number in range(2):
        publish(compiler, f"{near} {last}", number, 1)
    assert (visible(last), near.exists()) == (1, False)


@pytest.mark.parametrize("above", [0, -1, True, "3"])
def test_other_values_are_refused(compiler: Compiler, tmp_path: Path, above: object) -> None:
    """A number of bundles is 1 or more."""
    published = publish(compiler, tmp_path, 0, above)  # type: ignore[arg-type]
    assert isinstance(published.error, SettingsError)
    assert f"compact_above is {above!r}" in published.reason
