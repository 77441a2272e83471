"""Draw the time to the first output as bars: `python -m examples.benchmark.figure results/cpu.json`.

matplotlib is needed for the drawing alone; what is drawn is worked out without it.
"""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from examples.benchmark import first_output
from examples.benchmark.results import Results, read
from examples.benchmark.samples import Sample, cases, median_sample, series, total_of, value
from examples.benchmark.variants import OURS, VARIANTS

_PARTS: Mapping[str, tuple[tuple[str, ...], str]] = {
    "process and import torch": (("start", "import torch"), "#b8b8b8"),
    "import package": (("import package",), "#e69f00"),
    "warm: fetch and load": (("warm",), "#009e73"),
    "build model": (("build",), "#56b4e9"),
    "first call": (("first call",), "#0072b2"),
}
"""What is told apart, the stages it is made of, and a colour that the colour-blind can tell apart (Okabe and Ito)."""
_COLUMNS, _LEGEND_COLUMNS = 2, 3
"""Of panels, and of the legend below each."""
_INCHES = (5.6, 3.1)
"""Of one panel."""
_SETTINGS = {"svg.hashsalt": "megacache", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One variant on one model, in seconds."""

    variant: str
    parts: Mapping[str, float]
    """Of the run with the median, by what is told apart."""
    median: float
    least: float
    most: float


def bars(samples: Sequence[Sample], model: str) -> list[Bar]:
    """Work out what one panel shows."""
    return [_bar(samples, model, name) for name in VARIANTS if total_of(samples, model, name)]


def draw(results: Results, paths: Sequence[Path]) -> None:
    """Draw a panel for each model, into files whose names tell the format."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    samples = results.of(first_output.SECTION)
    models = cases(samples)
    rows = -(-len(models) // _COLUMNS)
    columns = min(_COLUMNS, len(models))
    with plt.rc_context(_SETTINGS):
        size = (_INCHES[0] * columns, _INCHES[1] * rows + 1)
        figure, axes = plt.subplots(rows, columns, figsize=size, squeeze=False, layout="constrained")
        for axis, model in zip(axes.flat, models, strict=False):
            _panel(axis, model, bars(samples, model))
        for axis in axes.flat[len(models) :]:
            axis.set_visible(False)
        figure.suptitle(_title(results))
        entries = axes.flat[0].get_legend_handles_labels()
        figure.legend(*entries, loc="outside lower center", ncols=_LEGEND_COLUMNS * columns, frameon=False)
        for path in paths:
            # A date would make equal drawings differ.
            figure.savefig(path, dpi=150, metadata={"Date": None} if path.suffix == ".svg" else None)
        plt.close(figure)


def _panel(axis: Any, model: str, shown: Sequence[Bar]) -> None:
    """Draw the bars of one model."""
    names = [bar.variant for bar in shown]
    starts = [0.0] * len(shown)
    for part, (_, colour) in _PARTS.items():
        lengths = [bar.parts[part] for bar in shown]
        axis.barh(names, lengths, left=starts, color=colour, label=part, height=0.7)
        starts = [start + length for start, length in zip(starts, lengths, strict=True)]
    below, above = ([bar.median - bar.least for bar in shown], [bar.most - bar.median for bar in shown])
    whiskers = {"fmt": "none", "ecolor": "black", "capsize": 2.5, "elinewidth": 0.9}
    axis.errorbar([bar.median for bar in shown], names, xerr=[below, above], label="least to most", **whiskers)
    room = max(bar.most for bar in shown)
    for place, bar in enumerate(shown):
        axis.text(bar.most + 0.015 * room, place, f"{bar.median:.1f}", va="center")
    axis.set_xlim(0, 1.1 * room)
    axis.invert_yaxis()
    axis.grid(visible=True, axis="x", alpha=0.3)
    axis.set_axisbelow(True)
    for label in axis.get_yticklabels():
        label.set_fontweight("bold" if label.get_text() in OURS else "normal")
    axis.set_title(model)
    axis.set_xlabel("seconds from process start to first output")


def _bar(samples: Sequence[Sample], model: str, variant: str) -> Bar:
    total = series(samples, model, variant, value("total"))
    values = median_sample(samples, model, variant).values
    parts = {part: sum(values[stage] for stage in stages) for part, (stages, _) in _PARTS.items()}
    least, most = total.span
    return Bar(variant=variant, parts=parts, median=values["total"], least=least, most=most)


def _title(results: Results) -> str:
    facts = results.facts
    return (
        f"Time to the first output, medians of {facts['rounds']} round(s)\n"
        f"{facts['device_name']}, torch {facts['versions']['torch']}"
    )


def main() -> None:
    """Draw a file of results anew, beside it."""
    path = Path(sys.argv[1])
    draw(read(path), [path.with_suffix(suffix) for suffix in (".svg", ".png")])


if __name__ == "__main__":
    main()
