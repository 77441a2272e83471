"""Find the names of torch that code asks for, and those that this build of torch does not have.

Followed are imports, attributes of what was imported, and variables that hold either. Left out is what the code itself
expects to be absent: a `try` that catches the failure, what takes its place, and attributes that `hasattr` asks for.
"""

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

_PACKAGES = frozenset({"torch", "triton"})
_FAILURES = frozenset({"ImportError", "ModuleNotFoundError", "AttributeError"})
ABSENT = object()
"""What stands for a name that does not exist."""


def absent(*sources: Path, packages: frozenset[str] = _PACKAGES) -> list[str]:
    """Give each name of some packages that does not exist, with the place that asks for it."""
    wanted = ((place, name) for place, name in asked(*sources) if name.partition(".")[0] in packages)
    return [f"{place}: {name}" for place, name in wanted if find(name) is ABSENT]


def asked(*sources: Path) -> list[tuple[str, str]]:
    """Give place and dotted name of all that is asked for."""
    found = []
    for source in sources:
        reader = _Reader()
        reader.visit(ast.parse(source.read_text()))
        found += [(f"{source.name}:{line}", name) for line, name in reader.found]
    return found


class _Reader(ast.NodeVisitor):
    """Reads one module; a function sees the names of those around it, and keeps its own to itself."""

    def __init__(self) -> None:
        self.found: list[tuple[int, str]] = []
        self._known: dict[str, str] = {}
        self._expected: frozenset[str] = frozenset()

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if _is_followed(alias.name):
                self.found.append((node.lineno, alias.name))
                bound = alias.name if alias.asname else alias.name.partition(".")[0]
                self._known[alias.asname or bound] = bound

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        if node.module and _is_followed(node.module):
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                self.found.append((node.lineno, name))
                self._known[alias.asname or alias.name] = name

    def visit_FunctionDef(self, node: ast.FunctionDef) -> None:
        before = self._known, self._expected
        own = {argument.arg for argument in ast.walk(node.args) if isinstance(argument, ast.arg)}
        self._known = {name: what for name, what in self._known.items() if name not in own}
        self._expected |= frozenset(_asked_by_hasattr(node))
        self.generic_visit(node)
        self._known, self._expected = before

    def visit_Try(self, node: ast.Try) -> None:
        expected = any(handler.type and _FAILURES & _names(handler.type) for handler in node.handlers)
        for part in (*node.orelse, *node.finalbody) if expected else ast.iter_child_nodes(node):
            self.visit(part)

    def visit_Assign(self, node: ast.Assign) -> None:
        self.generic_visit(node)
        for target in node.targets:
            self._assign(target, node.value)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self.generic_visit(node)
        self._assign(node.target, node.value)

    def visit_Attribute(self, node: ast.Attribute) -> None:
        name = self._dotted(node)
        if name and not self._expected & set(name.split(".")):
            self.found.append((node.lineno, name))
        elif name is None:
            self.generic_visit(node)

    def _assign(self, target: ast.expr, value: ast.expr | None) -> None:
        if isinstance(target, ast.Name):
            self._known.pop(target.id, None)
            if value is not None and (name := self._dotted(value)):
                self._known[target.id] = name

    def _dotted(self, node: ast.expr) -> str | None:
        """Tell what an expression stands for, if it is a known name or an attribute of one."""
        if isinstance(node, ast.Name):
            return self._known.get(node.id)
        if isinstance(node, ast.Attribute):
            owner = self._dotted(node.value)
            return f"{owner}.{node.attr}" if owner else None
        return None


def _is_followed(module: str) -> bool:
    return module.partition(".")[0] in _PACKAGES


def _names(node: ast.expr) -> set[str]:
    return {inner.id for inner in ast.walk(node) if isinstance(inner, ast.Name)}


def _asked_by_hasattr(node: ast.FunctionDef) -> Iterator[str]:
    for inner in ast.walk(node):
        if isinstance(inner, ast.Call) and isinstance(inner.func, ast.Name) and inner.func.id in {"hasattr", "getattr"}:
            words = [word.value for word in inner.args if isinstance(word, ast.Constant)]
            yield from (word for word in words if isinstance(word, str))


def find(name: str) -> Any:
    """Give what a name stands for, or `ABSENT`: import as far as there are modules, and go on by attributes."""
    parts = name.split(".")
    found: Any = importlib.import_module(parts[0])
    for at, part in enumerate(parts[1:], start=2):
        try:
            found = getattr(found, part)
        except AttributeError:
            try:
                found = importlib.import_module(".".join(parts[:at]))
            except ImportError:
                return ABSENT
    return found
