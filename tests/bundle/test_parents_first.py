"""In which order bundles are loaded."""

from dataclasses import replace

from megacache._bundle import Manifest, parents_first
from tests.kit.builders import artifact, bundle


def named(name: str, *parents: str, created: str) -> Manifest:
    """Make the manifest of a bundle with a name, parents and a date."""
    return replace(bundle([artifact(name)]).manifest, bundle=name, parents=parents, created=created)


def test_parents_come_first_whatever_the_clocks_say() -> None:
    """A bundle follows the ones its process had loaded, also if its publisher's clock was behind."""
    last = named("last", "middle", created="2026-01-01")
    middle = named("middle", "first", "vanished", created="2026-01-02")
    first = named("first", created="2026-01-03")
    assert [m.bundle for m in parents_first([last, middle, first])] == ["first", "middle", "last"]


def test_unrelated_bundles_come_by_age() -> None:
    """Without a parent in common, the older bundle comes first."""
    younger, older = named("a", created="2026-02-02"), named("b", created="2026-02-01")
    assert [m.bundle for m in parents_first([younger, older])] == ["b", "a"]


def test_bundles_that_name_each_other_come_by_age() -> None:
    """A ring of parents, which no honest publisher makes, does no harm."""
    one, other = named("one", "other", created="2026-02-01"), named("other", "one", created="2026-02-02")
    assert [m.bundle for m in parents_first([other, one])] == ["one", "other"]
