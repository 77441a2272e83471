"""Let torch find restored libraries as if this process had just compiled them."""

from collections.abc import Callable, Collection, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

from megacache._compiler._door import door
from megacache._compiler._probes import settle_picker
from megacache._compiler._toolchain import compiler_name

_ENDING = ".main.so"


def adopt(libraries: Iterable[Path], probes: Collection[str]) -> None:
    """Spare the next compilation what it would do only to find libraries that are there.

    torch looks for a library after it has preprocessed its headers and compiled them in advance, which takes seconds
    and a compiler. It looks into a table of this process before that, and finds there what is entered here.
    """
    with door("adopting compiled files"):
        for library in libraries:
            if library.name.endswith(_ENDING):
                _enter(library.name.removesuffix(_ENDING), library)
        _do_without_compiler()
    settle_picker(probes)


def _enter(key: str, library: Path) -> None:
    from torch._inductor.codecache import CppCodeCache, CppPythonBindingsCodeCache, CppWrapperCodeCache

    # The key covers the source, which tells one class from another: only one of them ever asks for it.
    for owner in (CppCodeCache, CppPythonBindingsCodeCache, CppWrapperCodeCache):
        owner.cache.setdefault(key, cache(partial(owner._load_library, str(library), key)))


def _do_without_compiler() -> None:
    """Let torch name a compiler that this host lacks, if it does: the names of libraries are made of its command line.

    What has to be compiled after all fails when it is started.
    """
    from torch._inductor import cpp_builder
    from torch._inductor.exc import InvalidCxxCompiler

    search: Callable[[Any], str] = cpp_builder.cpp_compiler_search
    try:
        cpp_builder.get_cpp_compiler()
    except InvalidCxxCompiler:
        name = compiler_name()
    else:
        return

    @cache
    def stand_in(candidates: Any) -> str:
        try:
            return search(candidates)
        except InvalidCxxCompiler:
            return name

    cpp_builder.cpp_compiler_search = stand_in
