"""Let torch find restored libraries as if this process had just compiled them, and believe its trials.

Inductor's ISA picker learns by trials what the C++ compiler and the processor can do together. Each trial compiles a
few lines and loads the result in a process of its own, again at every start: a second and more, even if the library is
still there. What a trial found for one compiler on one processor holds for all that are equal.
"""

from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from itertools import product
from pathlib import Path
from typing import Any

from megacache._compiler.door import door
from megacache._compiler.facts import compiler_name

_ENDING = ".main.so"


def passed_probes() -> tuple[str, ...]:
    """Name the trials that went well in this process; none if its picker has not run."""
    with door("asking its ISA picker"):
        return tuple(_name(isa, code) for isa in _valid_isas() for code in _codes(isa) if _passed(isa, code))


def probe_libraries() -> Iterator[Path]:
    """Give the libraries of those trials, where they are still in the cache folder."""
    from torch._inductor.codecache import get_hash, get_path
    from torch._inductor.cpu_vec_isa import _get_isa_dry_compile_fingerprint

    for isa in _valid_isas():
        for code, flags in product(_codes(isa), _flags(isa)):
            key = get_hash(getattr(isa, code).strip(), _get_isa_dry_compile_fingerprint(flags))
            path = Path(get_path(key, "so")[2])
            if path.is_file():
                yield path


def settle_picker(passed: Collection[str]) -> None:
    """Let the ISA picker decide now what it can by believing that trials go well here that went well before.

    No trial is run: one that is not among those is left to the first compilation, and the decision with it.
    """
    with door("settling its ISA picker"):
        from torch._inductor.cpu_vec_isa import supported_vec_isa_list, valid_vec_isa_list

        if not passed or valid_vec_isa_list.cache_info().currsize:
            return
        with _believed(frozenset(passed)):
            for isa in supported_vec_isa_list:  # each of them remembers what it has decided
                _decide(partial(bool, isa), supported_vec_isa_list)
            _decide(valid_vec_isa_list, supported_vec_isa_list)


class _UntriedError(Exception):
    """Whether a trial goes well is not known."""


@contextmanager
def _believed(passed: frozenset[str]) -> Iterator[None]:
    """Let a trial that went well go well, and none be run."""
    from torch._inductor import cpu_vec_isa

    picker: Any = cpu_vec_isa.VecISA
    original: Callable[[Any, str], bool] = picker.check_build

    def check_build(isa: Any, code: str) -> bool:
        if passed.isdisjoint(_name(isa, name) for name in _codes(isa) if getattr(isa, name) == code):
            raise _UntriedError
        return True

    picker.check_build = check_build
    try:
        yield
    finally:
        picker.check_build = original


def _decide(question: Callable[[], object], isas: Iterable[Any]) -> None:
    """Let the picker answer a question; if it cannot, nothing has changed."""
    flags = [(isa, isa._arch_flags) for isa in isas]
    try:
        question()
    except _UntriedError:
        for isa, own in flags:  # some are added for the length of a trial
            isa._arch_flags = own


def _valid_isas() -> list[Any]:
    from torch._inductor.cpu_vec_isa import valid_vec_isa_list

    return list(valid_vec_isa_list()) if valid_vec_isa_list.cache_info().currsize else []


def _codes(isa: Any) -> list[str]:
    """Name the attributes that hold what is compiled on trial."""
    return [name for name in dir(isa) if name.startswith("_") and name.endswith("_code")]


def _flags(isa: Any) -> set[str]:
    """Give the options that a trial may have been compiled with: for some extensions one is added."""
    extensions = [code.strip("_").removesuffix("_code") for code in _codes(isa)]
    added = [f" -m{extension.replace('_', mark)}" for extension in extensions for mark in ("", "-")]
    return {isa.build_arch_flags(), *(isa._arch_flags + one for one in ["", *added])}


def _passed(isa: Any, code: str) -> bool:
    """Tell how a trial ended: by the flag that it set, if it sets one, else because the ISA is valid at all."""
    return bool(getattr(isa, f"_is{code.removesuffix('_code')}_supported", True))


def _name(isa: Any, code: str) -> str:
    return f"{isa}:{code}"


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
