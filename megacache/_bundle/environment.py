"""The facts under which artifacts and compiled files mean the same thing, and how two sets of them differ."""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field, replace

from megacache._bundle.digest import Digest
from megacache._runtime import shown

FACTS: Mapping[str, str] = {
    "format": "major version of megacache's format",
    "device_type": "cuda, rocm, xpu, … or cpu",
    "device_name": "exact name of the current device; the machine's architecture on cpu",
    "device_capability": "compute capability (CUDA) or gcnArchName (ROCm)",
    "torch_version": "torch.__version__",
    "torch_key": "PyTorch's digest of its own sources",
    "toolkit": "CUDA or HIP version PyTorch was built with",
    "triton": "digest of Triton's key, which covers its sources and its compiler",
    "python": "CPython version and ABI",
    "os": "operating system",
    "machine": "processor architecture",
    "cpu_capability": "vector capability that PyTorch uses, which ATEN_CPU_CAPABILITY may lower",
    "cpu_extensions": "extensions that Inductor's ISA picker tells apart, and what it was asked to pick",
}
"""The facts that enter the fingerprint, and what each says."""

_GPUS = frozenset({"cuda", "rocm", "xpu"})
"""Types of devices for which Inductor writes the modules and Triton the kernels: what they hold can be told."""
_OF_CPU = frozenset({"cpu_capability", "cpu_extensions"})
"""Those that do not count for what was compiled for a GPU alone."""

GUARD: Mapping[str, str] = {
    "compiler": "name and version of the C++ compiler; a host without one accepts any",
    "compiler_name": "its name on the command line, which enters the names of files",
    "cpu_flags": "what the processor can do, as its kernel tells it",
    "cpu_target": "what of it the C++ compiler uses: libraries are compiled for the machine that compiles",
    "libc": "name and version of the C library",
    "python_location": "digest of the folders of Python's headers and libraries, which enter the names of files",
    "torch_location": "digest of the folder of PyTorch, which enters the names of files",
}
"""The facts that guard compiled files, and what each says."""
_OF_GPU_FILES = frozenset({"libc"})
"""Those on which a file depends that Triton made for a GPU: its kernels, and the libraries that launch them."""
_OF_PROCESSOR = frozenset({"cpu_flags", "cpu_target"})
NO_COMPILER = "none"
"""The name of the compiler on a host without one."""
_DIGEST = re.compile(r"[0-9a-f]{16,}")
# They tell a digest from others, and leave a line that can be read.
_DIGITS = 12


def fact_text(value: str) -> str:
    """Write the value of a fact for people: the first twelve digits of a digest, all of anything else."""
    return value[:_DIGITS] if _DIGEST.fullmatch(value) else value


@dataclass(frozen=True, slots=True, kw_only=True)
class Mismatch:
    """One fact that differs."""

    fact: str
    """Its name, as in `FACTS`."""
    here: str
    """Its value in this environment; empty if unset."""
    there: str
    """Its value in the other one."""

    def __str__(self) -> str:
        here, there = (shown(fact_text(value)) or "unset" for value in (self.here, self.there))
        return f"{shown(self.fact)} is {here} here, {there} there"


def differences(mismatches: Collection[Mismatch], *, most: int = 4) -> str:
    """Name some facts that differ, with both values, and the number of the others."""
    told = [
        *map(str, list(mismatches)[:most]),
        *([f"and {len(mismatches) - most} more"] if len(mismatches) > most else []),
    ]
    return "; ".join(told)


@dataclass(frozen=True, slots=True, kw_only=True)
class Environment:
    """What must agree between the process that compiled and the one that loads."""

    facts: Mapping[str, str]
    """Named in `FACTS`; an empty value where a fact does not apply."""
    recorded: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Facts that explain a miss but are not compared: threads, driver, compiler, … Never a path or a host name."""
    unread: Mapping[str, str] = field(default_factory=dict, compare=False)
    """Recorded facts that could not be read in this process, each with the error; they are empty in `recorded`."""

    @property
    def fingerprint(self) -> str:
        """The first 16 hex digits of the digest of all facts."""
        # The form must never change: it names the folders of all that is published.
        canonical = json.dumps(sorted(self.facts.items()), separators=(",", ":"))
        return Digest.of(canonical.encode()).hex[:16]

    @property
    def device_type(self) -> str:
        """The type of the device, as in `FACTS`."""
        return self.facts.get("device_type", "")

    @property
    def device(self) -> str:
        """The device's name, to file bundles under; on CPU with its vector capability."""
        if self.device_type == "cpu":
            return f"cpu {self.facts.get('machine', '')} {self.facts.get('cpu_capability', '')}"
        return self.facts.get("device_name", "")

    @property
    def for_any_cpu(self) -> "Environment | None":
        """The environment of what serves beside any CPU; None without such a GPU."""
        if self.device_type not in _GPUS:
            return None
        return replace(self, facts={name: value for name, value in self.facts.items() if name not in _OF_CPU})

    @property
    def is_for_any_cpu(self) -> bool:
        """True if it tells nothing of the CPU, and need not."""
        return self == self.for_any_cpu

    @property
    def readable(self) -> "tuple[Environment, ...]":
        """This environment, and the one for any CPU, if that is another: what is published for them serves here."""
        wider = self.for_any_cpu
        return (self,) if wider is None or wider == self else (self, wider)

    def mismatches(self, other: "Environment") -> tuple[Mismatch, ...]:
        """Name the facts that differ, in the order of `FACTS`; what serves beside any CPU tells of none."""
        names = [*FACTS, *sorted((self.facts.keys() | other.facts.keys()) - FACTS.keys())]
        if other.is_for_any_cpu:
            names = [name for name in names if name not in _OF_CPU]
        return tuple(
            Mismatch(fact=name, here=self.facts.get(name, ""), there=other.facts.get(name, ""))
            for name in names
            if self.facts.get(name, "") != other.facts.get(name, "")
        )


def applicable(guard: Mapping[str, str], roots: Collection[str], device_type: str) -> Mapping[str, str]:
    """Give the facts, of those that guard compiled files, on which files of some roots depend on a type of device."""
    # What Triton made for a GPU runs beside any CPU.
    if device_type == "cpu" or set(roots) != {"triton"}:
        return guard
    return {name: value for name, value in guard.items() if name in _OF_GPU_FILES or name not in GUARD}


def file_mismatches(
    here: Mapping[str, str], there: Mapping[str, str], *, roots: Collection[str], device_type: str
) -> tuple[Mismatch, ...]:
    """Name the facts for which files of some roots, compiled `there`, are of no use, or harmful, `here`."""
    here, there = (applicable(facts, roots, device_type) for facts in (here, there))
    names = [name for name in GUARD if name not in _OF_PROCESSOR]
    names += sorted((here.keys() | there.keys()) - GUARD.keys())
    # A host without a compiler takes the files of any: it compiles none that would have to go with them.
    differing = [
        Mismatch(fact=name, here=here.get(name, ""), there=there.get(name, ""))
        for name in names
        if here.get(name, "") != there.get(name, "") and (name, here.get(name)) != ("compiler", NO_COMPILER)
    ]
    return (*differing, *_processor_mismatch(here, there))


def _processor_mismatch(here: Mapping[str, str], there: Mapping[str, str]) -> Iterator[Mismatch]:
    """Tell whether this processor can do all that was used there; what it can do besides does no harm."""
    mine, used = _words(here, "cpu_target"), _words(there, "cpu_target")
    if used and used <= mine:
        return
    flags, others = _words(here, "cpu_flags"), _words(there, "cpu_flags")
    # A compiler asks the processor itself: it may use what the kernel does not tell of, and is to be believed.
    is_compared = used and mine and here.get("compiler") != NO_COMPILER
    if flags == others and not is_compared:
        return
    # Hundreds of flags agree; only the others tell something.
    if used and mine:
        yield Mismatch(fact="cpu_target", here="", there=" ".join(sorted(used - mine)))
    else:
        yield Mismatch(fact="cpu_flags", here=" ".join(sorted(flags - others)), there=" ".join(sorted(others - flags)))


def _words(facts: Mapping[str, str], name: str) -> frozenset[str]:
    return frozenset(facts.get(name, "").split())
