"""The package shows what it promises, and costs little to import."""

import dataclasses
import importlib
import inspect
import json
import pkgutil
import re
import subprocess
import sys
from importlib import resources
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import megacache

FOREIGN = {"torch", "fsspec", "s3fs", "gcsfs", "click", "rich", "numpy", "botocore", "aiohttp", "google"}
ON_REQUEST = {"compat", "autostart", "integrations"}
"""Packages that are there only for those who import them by name, as another test may have done."""
ACTING_ON_IMPORT = ("megacache.autostart", "megacache.integrations.site.")
PUBLIC = [getattr(megacache, name) for name in megacache.__all__ if name != "__version__"]


def public_members(value: type | ModuleType) -> list[tuple[str, object]]:
    """Give what a class or module defines itself for others to use."""
    return [
        (name, getattr(value, name))
        for name in vars(value)
        if not name.startswith("_")
        and (inspect.isroutine(getattr(value, name)) or inspect.isclass(getattr(value, name)))
    ]


def loaded_by(code: str) -> set[str]:
    """Run some code in a fresh interpreter, and name the modules that it has loaded."""
    told = f"import json, sys; {code}; print(json.dumps(sorted(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", told], capture_output=True, text=True, timeout=120, check=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_import_is_cheap() -> None:
    """A fresh interpreter that imports megacache has loaded its version and nothing else of it."""
    loaded = loaded_by("import megacache")
    assert {name for name in loaded if name.startswith("megacache")} == {"megacache", "megacache._version"}
    assert {"dataclasses", "logging", "asyncio"} & loaded == set()


def test_names_cost_no_foreign_library() -> None:
    """Every public name can be used without PyTorch, fsspec or a client of a store having been loaded."""
    loaded = loaded_by("from megacache import *; Cache; warm; errors.StoreError")
    assert {name.partition(".")[0] for name in loaded} & FOREIGN == set()


def test_help_loads_no_command() -> None:
    """`megacache --help` answers without importing what the commands need."""
    code = "import contextlib; from megacache._cli import main; sys.argv[1:] = ['--help']"
    loaded = loaded_by(f"{code}\nwith contextlib.suppress(SystemExit): main()\nNone")
    assert not {name for name in loaded if name.startswith("megacache._cli.commands.")}
    assert {name.partition(".")[0] for name in loaded} & (FOREIGN - {"click"}) == set()


def test_all_is_exactly_the_public_names() -> None:
    """What the package holds without an underscore stands in `__all__`, once, with the version; nothing else does."""
    public = {name for name in dir(megacache) if not name.startswith("_")} - ON_REQUEST - {"TYPE_CHECKING"}
    assert {name for name in public if getattr(megacache, name) is None} == set()
    assert set(megacache.__all__) == public | {"__version__"}
    assert len(megacache.__all__) == len(set(megacache.__all__))


def test_name_that_is_not_there_is_named() -> None:
    """A misspelt name is an `AttributeError`, as of any module."""
    with pytest.raises(AttributeError, match="module 'megacache' has no attribute 'wram'"):
        megacache.wram  # type: ignore[attr-defined] # noqa: B018


def test_names_come_from_the_package() -> None:
    """No public name is one that a module happened to import from elsewhere."""
    for value in PUBLIC:
        module = value.__name__ if isinstance(value, ModuleType) else value.__module__
        assert module.partition(".")[0] == "megacache", value


def test_values_cannot_be_changed() -> None:
    """Every dataclass that one module gives to another is frozen and has no room for more; public ones name fields."""
    names = [one.name for one in pkgutil.walk_packages(megacache.__path__, "megacache.")]
    modules = [importlib.import_module(name) for name in names if not name.startswith(ACTING_ON_IMPORT)]
    found = [value for module in modules for name, value in vars(module).items() if not name.startswith("_")]
    values: set[Any] = {value for value in found if inspect.isclass(value) and dataclasses.is_dataclass(value)}
    assert {value for value in values if not value.__dataclass_params__.frozen} == set()
    assert {value for value in values if "__slots__" not in vars(value)} == set()
    public = {value for value in values if value in PUBLIC}
    assert [field.name for value in public for field in dataclasses.fields(value) if not field.kw_only] == []
    assert public > {megacache.WarmResult, megacache.Environment}


def test_version_is_one() -> None:
    """The version is a string with numbers, the one that bundles name as their producer."""
    assert [part.isdigit() for part in megacache.__version__.split(".")[:2]] == [True, True]


def test_package_is_typed() -> None:
    """The marker that tells type checkers to read the annotations is in the package."""
    assert resources.files(megacache).joinpath("py.typed").is_file()


@pytest.mark.parametrize("value", [megacache, *PUBLIC], ids=lambda value: value.__name__)
def test_public_objects_have_docstrings(value: type | ModuleType) -> None:
    """Each public object, and each public function and class in it, has a docstring of its own."""
    assert value.__doc__
    for name, member in public_members(value):
        assert member.__doc__, name


def test_rooms_are_entered_by_their_doors() -> None:
    """A module imports from another room only what the room itself exports."""
    folder = Path(megacache.__file__).parent
    found = [
        f"{path.relative_to(folder)}: {line.strip()}"
        for path in folder.glob("**/*.py")
        for line, room in re.findall(r"^( *(?:from|import) megacache\.(\w+)\.\w+.*)$", path.read_text(), re.MULTILINE)
        if room != path.relative_to(folder).parts[0]
    ]
    assert found == []
