"""Folders of compiled files beside PyTorch's own: an integration registers that of its program."""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from megacache._runtime import kept


def _all(_: Collection[str]) -> bool:
    return True


@dataclass(frozen=True, slots=True, kw_only=True)
class Models:
    """Compiled models in the folder of a program that keeps its own."""

    restored: int
    """Those that warm starts have put there for this process."""
    loaded: int
    """Those that the program says it has loaded, wherever they came from."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Root:
    """A folder in which a program keeps what it compiles."""

    name: str
    """As in `FileRef.root`."""
    folder: Path
    facts: Mapping[str, str]
    """Facts that must agree, beside those of every compiled file; their names are used by no other root."""
    telling: frozenset[str] = frozenset()
    """Names of the files in which the folder is written."""
    foreign: bool = False
    """True if it is the cache of another compiler: nothing in it is for PyTorch to find."""
    used: Callable[[], Iterable[Path]]
    """Finds the files below the folder that this process has compiled or loaded."""
    concerns: Callable[[Collection[str]], bool] = _all
    """Tells whether this process would look at some of the files with these paths."""
    models: Callable[[Collection[str]], Models] | None = None
    """Counts the models of this process, given the paths of the files that warm starts have restored; None if the
    program does not tell what it loads."""


FOREIGN = "folder:"
"""The beginning of the names of the roots of other compilers."""

_registered: dict[str, Root] = kept({})


def register(root: Root) -> None:
    """Include a root in warm starts and publications of this process; one of the same name is replaced."""
    _registered[root.name] = root


def registered() -> tuple[Root, ...]:
    """Give the roots that are registered in this process."""
    return tuple(_registered.values())


def find(name: str) -> Root | None:
    """Give the root of a name, or None if it is one of PyTorch's own or not known in this process."""
    return _registered.get(name)


def guard(common: Mapping[str, str], names: Iterable[str]) -> Mapping[str, str]:
    """Add the facts of the roots that are named to those that guard every compiled file."""
    facts = dict(common)
    for root in filter(None, map(find, sorted(set(names)))):
        facts.update(root.facts)
    return facts
