"""What a warm start was worth: the numbers, and the one line that they come to."""

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from megacache._compiler import Lookups
from megacache._runtime import counted

FORMAT = 1
GRAPH_KINDS = ("inductor", "aot_autograd")
"""Kinds that PyTorch looks up for every graph; the others it asks for only under some settings."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """What the warm starts of this process were worth so far; as text, a verdict in one line.

    All numbers are of the process as a whole, for PyTorch's are; a hit may also come from what lay in the cache folder
    before. None is for what PyTorch does not tell.
    """

    warm_starts: int = 0
    """Calls of `warm`."""
    seconds_warming: float = 0.0
    """What they took in all."""
    bytes_stored: int = 0
    """Bytes they fetched from the store."""
    sources: Mapping[str, int] = field(default_factory=dict)
    """The same bytes by what gave them: the URL of a place, or `this node` for its folder of chunks."""
    bytes_raw: int = 0
    """The same bytes after decompression."""
    loaded: Mapping[str, int] = field(default_factory=dict)
    """Different artifacts they handed to PyTorch, by kind."""
    files: int = 0
    """Compiled files they put in place."""
    unused: Mapping[str, int] | None = field(default_factory=dict)
    """Those of the kinds `inductor` and `aot_autograd` that no graph has hit, by kind.

    PyTorch asks for the other kinds only under some settings: that it did not ask for them tells nothing.
    """
    refused: Mapping[str, int] = field(default_factory=dict)
    """Those that were not used, for they call a custom operator that is defined otherwise here, by operator."""
    inductor: Lookups | None = field(default_factory=Lookups)
    """Lookups in the FX graph cache, one for each forward and each backward."""
    aot_autograd: Lookups | None = field(default_factory=Lookups)
    """Lookups in AOTAutograd's cache, one for each graph with its backward."""
    cpp_kernels: int | None = None
    """Libraries of kernels that the C++ compiler made in this process; None before the first warm start."""
    cpp_runs: int | None = 0
    """Runs of the C++ compiler in this process, for kernels, for probes of the CPU and for headers."""
    cpp_seconds: float | None = 0.0
    """What they took; those that ran side by side are added up."""
    triton_kernels: int | None = None
    """Kernels that Triton compiled in this process and its compile workers; None before the first warm start."""
    seconds_saved: float | None = None
    """What the graphs that hit had taken to compile where they were compiled, by PyTorch's account.

    It holds the time of the C++ compiler there, even if it ran again here. None before the first warm start.
    """
    models_of: str = ""
    """The program that keeps its compiled models in files of its own, such as `vllm`; empty without one."""
    models_restored: int = 0
    """Compiled models, or pieces of them, that warm starts put where that program looks for its own."""
    models_loaded: int = 0
    """Those that it says it has loaded, wherever they came from."""
    ranks_agree: bool | None = None
    """True if PyTorch drops a hit that not every rank of the job has, as it does from 2.15 on, if
    `torch._functorch.config._sync_cache_decision_cross_ranks` is set; None where it has no such setting.
    """
    counters_cleared: bool = False
    """True if somebody has cleared PyTorch's counters: the lookups before that are missing in part."""

    @property
    def warnings(self) -> tuple[str, ...]:
        """What somebody should look into."""
        return tuple(_warnings(self))

    @property
    def verdict(self) -> str:
        """What it comes to, in one line."""
        return f"{_word(self)}: {'; '.join(_facts(self))}"

    def __str__(self) -> str:
        return self.verdict

    def to_json(self) -> dict[str, Any]:
        """Put it into the types of JSON, with the `format` of what is written, the `verdict` and the `warnings`."""
        return {"format": FORMAT, "verdict": self.verdict, "warnings": list(self.warnings), **asdict(self)}


def _word(receipt: Receipt) -> str:
    if not receipt.warm_starts:
        return "not warmed"
    compiled = receipt.cpp_kernels or receipt.triton_kernels
    if not receipt.loaded and (receipt.models_restored or _asked(receipt)):
        return _word_of_models(receipt)
    if not _asked(receipt):
        return "too early to tell"
    if _wasted(receipt):
        return "saved nothing"
    known = [lookups for lookups in (receipt.inductor, receipt.aot_autograd) if lookups is not None]
    if not known:
        return "unknown"
    return "warm" if all(lookups.hit == lookups.total for lookups in known) and not compiled else "partly warm"


def _word_of_models(receipt: Receipt) -> str:
    """Judge where no artifact was loaded, as with vLLM, whose graphs are in its own files."""
    compiled = receipt.cpp_kernels or receipt.triton_kernels
    if receipt.models_restored and receipt.models_loaded:
        return "partly warm" if compiled else "warm"
    if not _asked(receipt):
        return "too early to tell"
    if _worthless(receipt) and compiled:
        return "saved nothing"
    return "cold" if compiled or not receipt.files else "partly warm"


def _asked(receipt: Receipt) -> bool:
    # Unknown counts as asked: "too early to tell" would be wrong for ever.
    return any(lookups is None or lookups.total for lookups in (receipt.inductor, receipt.aot_autograd))


def _wasted(receipt: Receipt) -> bool:
    """Tell whether graphs were loaded and looked up, and none that was loaded has hit."""
    loaded = sum(receipt.loaded.get(kind, 0) for kind in GRAPH_KINDS)
    if not loaded or not _asked(receipt):
        return False
    if receipt.unused is not None:
        return sum(receipt.unused.values()) == loaded
    return not any(lookups is None or lookups.hit for lookups in (receipt.inductor, receipt.aot_autograd))


def _worthless(receipt: Receipt) -> bool:
    """Tell whether models were restored, and their program has loaded none."""
    return bool(receipt.models_restored) and not receipt.models_loaded and _asked(receipt)


def _facts(receipt: Receipt) -> Iterator[str]:
    yield f"Inductor {_known(receipt.inductor)}, AOTAutograd {_known(receipt.aot_autograd)}"
    if receipt.warm_starts:
        saved = "an unknown time" if receipt.seconds_saved is None else f"{receipt.seconds_saved:.1f} s"
        yield (
            f"{saved} saved by PyTorch's account, for {receipt.seconds_warming:.1f} s of warming "
            f"and {receipt.bytes_stored:,} bytes{_sources(receipt)}"
        )
    if receipt.files and not receipt.loaded:
        yield f"{counted(receipt.files, 'compiled file')} put in place"
    if receipt.loaded:
        unused = "an unknown number" if receipt.unused is None else sum(receipt.unused.values())
        yield f"{unused} of {sum(receipt.loaded.values())} loaded artifacts unused"
    if receipt.models_restored:
        restored = counted(receipt.models_restored, "restored model")
        yield f"{receipt.models_of} loaded {receipt.models_loaded} of {restored}"
    yield _compiled(receipt)


def _sources(receipt: Receipt) -> str:
    if len(receipt.sources) < 2:  # noqa: PLR2004 - where one gave all, there is nothing to tell apart
        return ""
    return f" ({', '.join(f'{size:,} from {source}' for source, size in receipt.sources.items())})"


def _compiled(receipt: Receipt) -> str:
    anew = f"compiled anew: {_number(receipt.cpp_kernels)} C++ and {_number(receipt.triton_kernels)} Triton kernels"
    if not receipt.cpp_runs or receipt.cpp_seconds is None:
        return anew
    return f"{anew}; the C++ compiler ran {counted(receipt.cpp_runs, 'time')}, {receipt.cpp_seconds:.1f} s"


def _warnings(receipt: Receipt) -> Iterator[str]:
    if _wasted(receipt):
        yield (
            f"warming moved {receipt.bytes_stored:,} bytes in {receipt.seconds_warming:.1f} s and saved nothing: "
            "no graph has hit what was loaded"
        )
    if _worthless(receipt):
        yield (
            f"the transfer of {counted(receipt.models_restored, 'compiled model')} was worthless: "
            f"{receipt.models_of} has loaded none of them, and says why in its own log"
        )
    for name, lookups in (("Inductor", receipt.inductor), ("AOTAutograd", receipt.aot_autograd)):
        for reason, count in (lookups.reasons if lookups else {}).items():
            graphs = counted(count, "graph")
            yield f"{name}'s cache does not take {graphs}, which will cost their time at every start: {reason}"
    for name, count in receipt.refused.items():
        yield f"{counted(count, 'loaded artifact')} not used: custom operator {name} is defined otherwise here"
    if receipt.counters_cleared:
        yield "PyTorch's counters were cleared in this process: the lookups before that are missing in part"


def _known(lookups: Lookups | None) -> str:
    return "unknown" if lookups is None else str(lookups)


def _number(count: int | None) -> str:
    return "an unknown number of" if count is None else str(count)
