"""What `explain` answers."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from enum import StrEnum
from typing import Any, Self

from megacache._bundle import Mismatch
from megacache._runtime import counted
from megacache.errors import MegacacheError

JSON_FORMAT = 1
"""Version of what `Explanation.to_json` gives; it grows when a field goes or changes its meaning."""

_MEANINGS = {
    "gm": "the graph's code",
    "cpp_runtime_thread_count": "torch.get_num_threads()",
    "cuda_matmul_settings": "torch.get_float32_matmul_precision() and torch.backends.cuda.matmul",
    "default_dtype": "torch.get_default_dtype()",
    "deterministic_algorithms_settings": "torch.use_deterministic_algorithms()",
    "cache_key_tag": "TORCH_COMPILE_CACHE_KEY_TAG",
}
_MAX_LINES = 12
_SHORT = 12


class ExplainStatus(StrEnum):
    """What was found."""

    ENVIRONMENT = "environment"
    """Nothing is published for this environment; `mismatches` tells how the nearest one differs."""
    GRAPHS = "graphs"
    """Graphs are not in the store; `misses` tells how the nearest one differs from each."""
    FILES = "files"
    """Files of a program such as vLLM are in the store, and none fits; `mismatches` tells how the nearest differ."""
    COVERED = "covered"
    """The store holds every graph that this process compiled: nothing missed, or nothing had to."""
    EMPTY = "empty"
    """This process has compiled nothing that PyTorch recorded."""
    DISABLED = "disabled"
    """Switched off, here or in PyTorch."""
    UNAVAILABLE = "unavailable"
    """The store, the data or PyTorch failed, or time ran out."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One component of a graph's key that differs."""

    name: str
    """As PyTorch names it, such as `inductor_config[max_autotune]` or `example_inputs[0].shape`; `gm` is the code."""
    here: str
    """Its value in this process, without paths and names of hosts and users; of code, the first line that differs."""
    there: str
    """Its value in the published graph; empty if it has none."""

    def __str__(self) -> str:
        meaning = _MEANINGS.get(self.name)
        name = f"{self.name} ({meaning})" if meaning else self.name
        return f"{name} is {self.here or 'unset'} here, {self.there or 'unset'} there"


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphMiss:
    """One graph that this process had to compile, though others were published."""

    kind: str
    """`inductor`, or `aot_autograd` where Inductor's own graphs hit."""
    key: str
    """PyTorch's key of it in this process."""
    role: str = ""
    """`inference`, `forward` or `backward`; empty if not known."""
    nearest: str = ""
    """The key of the published graph that is most like it; empty if none can be compared."""
    differences: tuple[Difference, ...] = ()
    """What differs between the two keys."""
    reason: str = ""
    """What else is known of this miss."""

    def __str__(self) -> str:
        title = " ".join(filter(None, [self.role, self.kind, "graph", self.key[:_SHORT]]))
        if self.nearest:
            title += f" against {self.nearest[:_SHORT]}"
        return _described(title, self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Explanation:
    """Why a warm start missed, as far as the store and this process tell."""

    status: ExplainStatus
    """What was found."""
    url: str
    """The cache, without any password that its URL held."""
    reason: str = ""
    """Why the status is what it is, for people."""
    warnings: tuple[str, ...] = ()
    """What could not be read or compared."""
    fingerprint: str = ""
    """Of this environment; empty if it was not determined."""
    mismatches: tuple[Mismatch, ...] = ()
    """The facts that differ between this environment, or a program in it, and the nearest published one."""
    graphs: int = 0
    """Graphs that this process has: those that Inductor compiled or found."""
    misses: tuple[GraphMiss, ...] = ()
    """Those that the store does not hold."""
    seconds: float = 0.0
    """Time spent."""
    error: MegacacheError | None = None
    """The fault that decided the status, if one did."""

    def __str__(self) -> str:
        return "\n".join(self._lines())

    def raise_for_status(self) -> Self:
        """Raise the fault that decided the status; what is explained raises nothing."""
        if self.error is not None:
            raise self.error
        return self

    def to_json(self) -> dict[str, Any]:
        """Give the same in JSON's types, with the version of this form as `format`."""
        return {
            "format": JSON_FORMAT,
            "status": self.status.value,
            "url": self.url,
            "reason": self.reason,
            "warnings": list(self.warnings),
            "fingerprint": self.fingerprint,
            "mismatches": [asdict(mismatch) for mismatch in self.mismatches],
            "graphs": self.graphs,
            "misses": [{**asdict(miss), "differences": [asdict(d) for d in miss.differences]} for miss in self.misses],
            "seconds": self.seconds,
            "error": type(self.error).__name__ if self.error else None,
        }

    def _lines(self) -> Iterator[str]:
        yield ": ".join(filter(None, [self.status, self.reason]))
        yield from (f"  {mismatch}" for mismatch in self.mismatches)
        # A setting that differs makes every graph miss: what they have in common is said once.
        alike: dict[object, list[GraphMiss]] = {}
        for miss in self.misses:
            alike.setdefault((miss.differences, miss.reason), []).append(miss)
        for misses in alike.values():
            first, *others = misses
            yield (
                _described(f"{counted(len(misses), 'graph')} alike, such as {first.key[:_SHORT]}", first)
                if others
                else str(first)
            )
        yield from (f"warning: {warning}" for warning in self.warnings)


def _described(title: str, miss: GraphMiss) -> str:
    shown = [f"  {difference}" for difference in miss.differences[:_MAX_LINES]]
    more = len(miss.differences) - len(shown)
    lines = [f"{title}: {miss.reason}".removesuffix(": "), *shown, f"  and {more} more" if more else ""]
    return "\n".join(filter(None, lines))
