"""The options of the command, and what they come to on this machine."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from examples.benchmark import machine
from examples.benchmark.models import GPU_MODELS
from examples.benchmark.variants import VARIANTS

RESULTS = Path(__file__).parent / "results"
SECTIONS = "ABCDE"
_GPU_SECTIONS = "A"
"""What is transferred, which is the rest, is the same on every device."""
_TOLD = """\
Run the benchmark: print Markdown, and keep every sample as JSON, the tables and a figure. What is measured is written
after each process, and what is left out is named."""
_DEVICE = """\
where the models run (default: on the GPU if torch sees one, else on the CPU). On a GPU, section A is measured; the
others do not depend on the device and go with cpu"""
_BUDGET = """\
end within this time; the most important cases come first, each process is bounded by what is left, and what was not
reached is named (default: no bound)"""


def parsed(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line; `devices` and `folder` are worked out."""
    command = parser()
    options = command.parse_args(argv)
    gpu = bool(machine.gpu())
    device = options.device or ("cuda" if gpu and _measured_on_gpu(options) else "cpu")
    if device != "cpu" and not gpu:
        command.error("torch sees no GPU (torch.cuda.is_available() is false): use --device cpu")
    if device == "cuda" and not _measured_on_gpu(options):
        command.error(f"section {options.only} does not depend on the device: use --device cpu")
    options.devices = ("cuda", "cpu") if device == "all" else (device,)
    options.folder = options.results or (RESULTS / "quick" if options.quick else RESULTS)
    return options


def sections(options: argparse.Namespace, device: str) -> str:
    """Name the sections to measure on a device."""
    measured = SECTIONS if device == "cpu" else _GPU_SECTIONS
    return "".join(section for section in measured if options.only in {None, section})


def _measured_on_gpu(options: argparse.Namespace) -> bool:
    return bool(sections(options, "cuda"))


def parser() -> argparse.ArgumentParser:
    """Describe the command line."""
    command = argparse.ArgumentParser(prog="python -m examples.benchmark", description=_TOLD)
    command.add_argument("--device", choices=("cpu", "cuda", "all"), help=_DEVICE)
    command.add_argument("--budget", type=float, metavar="SECONDS", help=_BUDGET)
    command.add_argument("--rounds", type=int, default=3, help="samples of each variant (default: 3)")
    command.add_argument("--only", choices=SECTIONS, help="A first output, B time, C memory, D requests, E imports")
    command.add_argument("--quick", action="store_true", help="one round of small cases, to see that it works")
    _choice(command, "--models", GPU_MODELS)
    _choice(command, "--variants", tuple(VARIANTS))
    command.add_argument("--results", type=Path, help=f"where to write (default: {RESULTS}, quick/ below it if quick)")
    return command


def _choice(command: argparse.ArgumentParser, flag: str, names: Sequence[str]) -> None:
    command.add_argument(flag, nargs="+", choices=names, default=names, metavar="NAME", help=f"of {', '.join(names)}")
