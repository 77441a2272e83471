"""The facts under which an artifact means the same thing, and how two sets of them differ."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from megacache._digest import Digest
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
    "epoch": "generation of the cache, as its URL asks for one; absent without",
}
"""The facts that enter the fingerprint, and what each says."""


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
        here, there = shown(self.here) or "unset", shown(self.there) or "unset"
        return f"{shown(self.fact)} is {here} here, {there} there"


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
    def epoch(self) -> str:
        """The generation of the cache; empty for the first."""
        return self.facts.get("epoch", "")

    def of_epoch(self, epoch: str) -> "Environment":
        """Give the same environment in a generation of a cache; an empty one is the first."""
        return replace(self, facts={**self.facts, "epoch": epoch}) if epoch else self

    def mismatches(self, other: "Environment") -> tuple[Mismatch, ...]:
        """Name the facts that differ, in the order of `FACTS`."""
        names = [*FACTS, *sorted((self.facts.keys() | other.facts.keys()) - FACTS.keys())]
        return tuple(
            Mismatch(fact=name, here=self.facts.get(name, ""), there=other.facts.get(name, ""))
            for name in names
            if self.facts.get(name, "") != other.facts.get(name, "")
        )
