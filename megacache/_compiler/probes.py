"""Let Inductor's ISA picker believe the trials that went well on an equal host.

It learns by trials what the C++ compiler and the processor can do together. Each trial compiles a few lines and loads
the result in a process of its own, again at every start: a second and more, even if the library is still there. What a
trial found for one compiler on one processor holds for all that are equal.
"""

import functools
from collections.abc import Callable, Iterable, Iterator
from itertools import product
from pathlib import Path
from typing import Any

from megacache._compiler.door import door
from megacache._runtime import kept

_believed: set[str] = kept(set())


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


def believe(passed: Iterable[str]) -> None:
    """Let the ISA picker, whenever it runs, take it that trials go well here that went well before.

    It decides when it would have, and then makes the trials that no bundle has recorded.
    """
    _believed.update(passed)
    if _believed:
        with door("telling its ISA picker"):
            _listen()


@functools.cache
def _listen() -> None:
    from torch._inductor import cpu_vec_isa

    picker: Any = cpu_vec_isa.VecISA
    original: Callable[[Any, str], bool] = picker.check_build

    @functools.wraps(original)
    def check_build(isa: Any, code: str) -> bool:
        names = {_name(isa, name) for name in _codes(isa) if getattr(isa, name) == code}
        return bool(names & _believed) or original(isa, code)

    picker.check_build = check_build


def _valid_isas() -> list[Any]:
    from torch._inductor.cpu_vec_isa import valid_vec_isa_list

    # Calling it runs all trials; it is cached, and thus free, once the picker has called it.
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
