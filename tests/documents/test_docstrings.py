"""What documents leave to docstrings is told there, completely."""

import ast
import inspect
from dataclasses import fields
from itertools import pairwise
from types import ModuleType

import pytest

from megacache import Explanation, Lookups, PublishResult, Receipt, WarmResult, errors
from megacache._cli import exit_codes

_HOLDERS = ast.Module | ast.ClassDef


def explained(source: type | ModuleType) -> set[str]:
    """Name what is assigned or declared in a class or a module with a string under it."""
    bodies = [one.body for one in ast.walk(ast.parse(inspect.getsource(source))) if isinstance(one, _HOLDERS)]
    found = [one for body in bodies for one, under in pairwise(body) if isinstance(under, ast.Expr)]
    declared = {ast.unparse(one.target) for one in found if isinstance(one, ast.AnnAssign)}
    return declared | {ast.unparse(one.targets[0]) for one in found if isinstance(one, ast.Assign)}


@pytest.mark.parametrize("value", [Receipt, Lookups, WarmResult, PublishResult, Explanation])
def test_every_field_is_explained(value: type) -> None:
    """Each field of what the calls return says what it is, where it is declared first."""
    told = {name for kind in value.__mro__[:-1] for name in explained(kind)}
    assert {field.name for field in fields(value)} <= told


def test_every_exit_code_is_explained() -> None:
    """Each exit code says what it stands for."""
    assert {name for name in vars(exit_codes) if name.startswith("EXIT_")} <= explained(exit_codes)


def test_every_error_is_in_the_tree() -> None:
    """The docstring of the module of errors names each exception."""
    kinds = [name for name, one in vars(errors).items() if isinstance(one, type) and issubclass(one, Exception)]
    assert [name for name in kinds if f"`{name}`" not in (errors.__doc__ or "")] == []
