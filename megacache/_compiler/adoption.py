"""Let torch find restored libraries of kernels as if this process had just compiled them.

torch looks for a library after it has preprocessed its headers and compiled them in advance, which takes seconds and a
compiler. It looks into a table of this process before that. A library in that table is loaded already: it serves even
if its file is removed. One that cannot be loaded is found here, where it costs a compilation; torch would let the
program fail.
"""

import ctypes
import functools
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from megacache._compiler.door import door
from megacache._compiler.facts import compiler_name
from megacache._compiler.libraries import load_library

_ENDING = ".main.so"
# Each takes five of the 65,530 mappings that Linux grants a process by default.
_MOST = 8_000
"""Libraries that are held at most."""


@dataclass(slots=True, kw_only=True)
class _Entry:
    """A library that is loaded, as torch's table has it; calling it gives what torch wants of it."""

    path: Path
    key: str
    owner: Any
    library: ctypes.CDLL
    """Holds it: the system gives a library that is loaded under this path, and does not look at the disk."""
    asked: bool = False

    def __call__(self) -> Any:
        # torch's own entries end in the same private method, from 2.8 to 2.15.
        self.asked = True
        return self.owner._load_library(str(self.path), self.key)


_entries: dict[str, _Entry] = {}


def is_kernel(path: str) -> bool:
    """Tell whether a compiled file is the library of a kernel, by its path."""
    return path.endswith(_ENDING)


def check_kernel(library: Path) -> None:
    """Load the library of a kernel, and see that torch can use it; raise `CompilerError` if not."""
    if len(_entries) < _MOST:
        with door("loading the library of a kernel"):
            _owner(load_library(library))


def adopt(libraries: Iterable[Path]) -> None:
    """Enter libraries in torch's tables, so that the next compilation finds them without preparing a compilation."""
    with door("adopting compiled files"):
        for library in libraries:
            if len(_entries) < _MOST and is_kernel(library.name):
                with suppress(OSError):  # it is gone again
                    _add(library.name.removesuffix(_ENDING), library)
        _do_without_compiler()


def unasked() -> frozenset[Path]:
    """Give the libraries that are loaded only because they were adopted: no graph has asked for them yet."""
    return frozenset(one.path for one in _entries.values() if not one.asked and one.owner.cache.get(one.key) is one)


def _add(key: str, library: Path) -> None:
    held = load_library(library)
    entry = _Entry(path=library, key=key, owner=_owner(held), library=held)
    # A library that this process has compiled or loaded itself stays.
    if entry.owner.cache.setdefault(key, entry) is entry:
        _entries[key] = entry


def _owner(library: ctypes.CDLL) -> Any:
    # Each class asks for an entry point of its own, and only the library tells which one was compiled.
    from torch._inductor.codecache import CppCodeCache, CppPythonBindingsCodeCache, CppWrapperCodeCache

    owners: Mapping[str, Any] = {
        f"PyInit_{CppPythonBindingsCodeCache.entry_function}": CppPythonBindingsCodeCache,
        f"PyInit_{CppWrapperCodeCache.entry_function}": CppWrapperCodeCache,
        "guard": CppCodeCache,  # of sizes, which Dynamo compiles if it is told to
        "kernel": CppCodeCache,
    }
    for entry_point, owner in owners.items():
        if hasattr(library, entry_point):
            return owner
    msg = f"none of {', '.join(owners)} is in it"
    raise ImportError(msg)


@functools.cache
def _do_without_compiler() -> None:
    """Let torch name a compiler that this host lacks."""
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    search: Callable[[Any], str] = cpp_builder.cpp_compiler_search
    run: Callable[..., None] = cpp_builder.run_compile_cmd
    try:
        cpp_builder.get_cpp_compiler()
    except InvalidCxxCompiler:
        name = compiler_name()
    else:
        return

    # The names of libraries are made of the compiler's command line: without a name, no restored one would be found.
    @functools.cache
    def stand_in(candidates: Any) -> str:
        try:
            return search(candidates)
        except InvalidCxxCompiler:
            return name

    @functools.wraps(run)
    def started(*command: Any, **options: Any) -> None:
        try:
            run(*command, **options)
        except FileNotFoundError as error:
            # What has to be compiled after all fails as it would have when the compiler was searched for.
            raise InvalidCxxCompiler from error

    cpp_builder.cpp_compiler_search = stand_in
    cpp_builder.run_compile_cmd = started
