"""The exceptions are the tree that their module shows, and each carries its facts."""

import inspect
import pickle
import re

import pytest

from megacache import errors
from megacache.errors import FormatError, IntegrityError, MegacacheError

CLASSES = [
    value
    for name, value in vars(errors).items()
    if inspect.isclass(value) and value.__module__ == errors.__name__ and not name.startswith("_")
]


def shown() -> dict[str, str]:
    """Read the tree in the docstring: each class with the one it is indented under."""
    parents: dict[str, str] = {}
    above: dict[int, str] = {-4: "Exception"}
    for indent, name in re.findall(r"^( *)\* `(\w+)`", inspect.getdoc(errors) or "", re.MULTILINE):
        parents[name] = above[len(indent) - 4]
        above[len(indent)] = name
    return parents


def test_the_docstring_shows_the_tree() -> None:
    """Every class stands in the module's docstring, under the class it derives from, and nothing else does."""
    assert shown() == {cls.__name__: cls.mro()[1].__name__ for cls in CLASSES}
    assert len(CLASSES) > 5


@pytest.mark.parametrize("cls", CLASSES)
def test_every_class_says_what_it_is(cls: type) -> None:
    """Each exception has a docstring of its own."""
    assert cls.__doc__ not in {None, *(above.__doc__ for above in cls.mro()[1:])}


def test_hint_follows_the_message() -> None:
    """The text of an error ends in what to do, which is also an attribute."""
    error = MegacacheError("no store at x", hint="correct the URL")
    assert (str(error), error.hint) == ("no store at x; correct the URL", "correct the URL")
    assert (str(MegacacheError("no store")), MegacacheError("no store").hint) == ("no store", "")


def test_format_error_names_the_place() -> None:
    """An error in a document says where, before what."""
    error = FormatError("expected text", path="chunks[0].digest", hint="publish again")
    assert (str(error), error.path) == ("chunks[0].digest: expected text; publish again", "chunks[0].digest")
    assert (str(FormatError("expected text")), FormatError("expected text").path) == ("expected text", "")


def test_integrity_error_holds_both_values() -> None:
    """An error about damaged bytes has what was declared and what was found."""
    error = IntegrityError("chunk 12ab", expected=3, actual=4)
    assert str(error) == "chunk 12ab is damaged: expected 3, got 4"
    assert (error.expected, error.actual) == (3, 4)


def test_errors_survive_pickling() -> None:
    """An error that crosses a process boundary keeps its message, its facts and its hint."""
    damaged = errors.IntegrityError("chunk", expected="a", actual="b")
    for error in (damaged, errors.FormatError("wrong", path="x[0]", hint="upgrade")):
        again = pickle.loads(pickle.dumps(error))
        assert str(again) == str(error)
        assert vars(again) == vars(error)
