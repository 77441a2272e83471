"""Run the benchmark: print Markdown, and keep every sample as JSON, the tables and a figure."""

import argparse
import logging
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from examples.benchmark import figure, first_output, machine, ptxas, redis_server, requests, transfers
from examples.benchmark.bench import Bench
from examples.benchmark.models import GPU_MODELS, MODELS
from examples.benchmark.report import markdown
from examples.benchmark.results import Results, write
from examples.benchmark.samples import Sample
from examples.benchmark.variants import VARIANTS, missing
from tests.servers.moto import serve

_SECTIONS: Mapping[str, Callable[[Bench], Iterator[Sample]]] = {
    "A": first_output.measure,
    "B": transfers.measure,
    "C": transfers.measure,
    "D": requests.measure,
}
_RESULTS = Path(__file__).parent / "results"
_log = logging.getLogger("benchmark")


def main() -> None:
    """Measure what was asked for, on the CPU and then on the GPU if there is one."""
    options = _parser().parse_args()
    logging.basicConfig(stream=sys.stderr, level=logging.WARNING, format="%(asctime)s %(message)s")
    _log.setLevel(logging.INFO)
    folder = options.results or (_RESULTS / "quick" if options.quick else _RESULTS)
    _run(options, device="cpu", sections=options.only or "ABCD", path=folder / "cpu.json")
    if machine.gpu():
        # What is transferred is the same on every device.
        _run(options, device="cuda", sections="A", path=folder / "gpu.json")
    else:
        print("\nNo GPU here (`torch.cuda.is_available()` is false): the models were compiled for the CPU only.")


def _run(options: argparse.Namespace, *, device: str, sections: str, path: Path) -> None:
    """Measure on one device, and keep what was measured even if a part of it fails."""
    left_out = {name: lacked for name, lacked in missing().items() if name in options.variants}
    for name, lacked in left_out.items():
        _log.warning("left out: %s, for lack of %s", name, lacked)
    models = MODELS if device == "cpu" else GPU_MODELS
    settings = {
        "rounds": 1 if options.quick else options.rounds,
        "quick": options.quick,
        "models": tuple(name for name in models if name in options.models),
        "variants": tuple(name for name in VARIANTS if name in options.variants and name not in left_out),
        "device": device,
    }
    samples: list[Sample] = []
    facts = _facts(device) | {"rounds": settings["rounds"], "left_out": left_out}
    results = Results(facts=facts, samples=samples)
    try:
        samples.extend(_samples(sections, settings))
    finally:
        write(path, results)
    _tell(results, path)


def _samples(sections: str, settings: Mapping[str, Any]) -> Iterator[Sample]:
    # B and C are two views of the same processes.
    measures = dict.fromkeys(_SECTIONS[section] for section in sections)
    with ExitStack() as stack:
        prefix = "megacache-benchmark-"
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix=prefix, ignore_cleanup_errors=True)))
        for name in ("moto", "ptxas"):
            (folder / name).mkdir()
        moto = stack.enter_context(serve(folder / "moto"))
        redis = "redis" in settings["variants"] and first_output.measure in measures
        redis_url = stack.enter_context(redis_server.serve(folder / "redis")) if redis else ""
        variables = ptxas.wrapped(folder / "ptxas") if settings["device"] == "cuda" else {}
        bench = Bench(folder=folder, moto=moto, redis_url=redis_url, variables=variables, **settings)
        for measure in measures:
            yield from measure(bench)


def _tell(results: Results, path: Path) -> None:
    """Print the tables, and write them beside the samples, with a figure of the first outputs."""
    text = markdown(results)
    path.with_suffix(".md").write_text(text)
    print(text, end="")
    if not results.of(first_output.SECTION):
        return
    if find_spec("matplotlib") is None:
        print("\nNo figure: matplotlib is not installed.")
        return
    figure.draw(results, [path.with_suffix(".svg"), path.with_suffix(".png")])


def _facts(device: str) -> dict[str, Any]:
    found = dict(machine.facts())
    command = " ".join(["python -m examples.benchmark", *sys.argv[1:]])
    name = found["gpu"] if device == "cuda" else f"{found['cpu']}, {found['cores']} cores"
    return {"date": datetime.now(UTC).isoformat(timespec="seconds"), "command": command, "device_name": name, **found}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m examples.benchmark", description=__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="samples of each variant (default: 3)")
    parser.add_argument("--only", choices=sorted(_SECTIONS), help="A first output, B time, C memory, D requests")
    parser.add_argument("--quick", action="store_true", help="one round of small cases, to see that it works")
    _choice(parser, "--models", GPU_MODELS)
    _choice(parser, "--variants", tuple(VARIANTS))
    parser.add_argument("--results", type=Path, help=f"where to write (default: {_RESULTS}, quick/ below it if quick)")
    return parser


def _choice(parser: argparse.ArgumentParser, flag: str, names: Sequence[str]) -> None:
    parser.add_argument(flag, nargs="+", choices=names, default=names, metavar="NAME", help=f"of {', '.join(names)}")


if __name__ == "__main__":
    main()
