"""The facts under which a compiled file may be restored, beside those of the environment."""

from collections.abc import Collection, Mapping

from megacache._environment import Mismatch

GUARD: Mapping[str, str] = {
    "compiler": "name and version of the C++ compiler; a host without one accepts any",
    "compiler_name": "what it is called as, which enters the names of files",
    "cpu_flags": "what the processor can do: libraries are compiled for the machine that compiles",
    "libc": "name and version of the C library",
    "python_location": "digest of the folders of Python's headers and libraries, which enter the names of files",
    "torch_location": "digest of the folder of PyTorch, which enters the names of files",
}
"""The facts that guard compiled files, and what each says."""
_OF_GPU_FILES = frozenset({"libc"})
"""Those on which a file depends that Triton made for a GPU: its kernels, and the libraries that launch them."""
NO_COMPILER = "none"
"""What a host without a C++ compiler says of its compiler."""


def applicable(guard: Mapping[str, str], roots: Collection[str], device_type: str) -> Mapping[str, str]:
    """Give the facts, of those that guard compiled files, on which files of some roots depend on a type of device."""
    if device_type == "cpu" or set(roots) != {"triton"}:
        return guard
    return {name: value for name, value in guard.items() if name in _OF_GPU_FILES or name not in GUARD}


def mismatches(
    here: Mapping[str, str], there: Mapping[str, str], *, roots: Collection[str], device_type: str
) -> tuple[Mismatch, ...]:
    """Name the facts for which files of some roots, compiled `there`, are of no use, or harmful, `here`."""
    here, there = (applicable(facts, roots, device_type) for facts in (here, there))
    return tuple(
        _mismatch(name, here.get(name, ""), there.get(name, ""))
        for name in [*GUARD, *sorted((here.keys() | there.keys()) - GUARD.keys())]
        if here.get(name, "") != there.get(name, "") and (name, here.get(name)) != ("compiler", NO_COMPILER)
    )


def _mismatch(name: str, here: str, there: str) -> Mismatch:
    if name != "cpu_flags":
        return Mismatch(fact=name, here=here, there=there)
    mine, theirs = set(here.split()), set(there.split())
    # Hundreds of flags agree; only the others tell something.
    return Mismatch(fact=name, here=" ".join(sorted(mine - theirs)), there=" ".join(sorted(theirs - mine)))
