"""Draw requests and bytes by the size of a fleet; matplotlib is needed for that alone."""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from examples.fleet.table import FAR

_SETTINGS = {"svg.hashsalt": "megacache", "font.size": 9, "axes.spines.top": False, "axes.spines.right": False}
_LINES = (
    ("requests", "reads (GET)", "reads", "#0072b2"),
    ("requests", "writes and lists (PUT, LIST)", "writes", "#e69f00"),
    ("bytes", "out of the store", "bytes_out", "#009e73"),
    ("bytes", "into the store", "bytes_in", "#b8860b"),
)
"""Panel, name, figure and a colour that the colour-blind can tell apart."""


def draw(document: Mapping[str, Any], path: Path) -> None:
    """Draw two panels, and from the largest fleet on what it would be for more."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    sizes = document["sizes"]
    workers, largest = [one["workers"] for one in sizes], sizes[-1]
    with plt.rc_context(_SETTINGS):
        figure, axes = plt.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
        panels = dict(zip(("requests", "bytes"), axes, strict=True))
        for panel, name, value, colour in _LINES:
            panels[panel].plot(workers, [one[value] for one in sizes], "o-", color=colour, label=name, markersize=4)
            # What goes in does not grow with the fleet: each graph is compiled once.
            grown = largest[value] * (1 if value == "bytes_in" else FAR / largest["workers"])
            panels[panel].plot([largest["workers"], FAR], [largest[value], grown], "--", color=colour)
        for panel, axis in panels.items():
            axis.set(xscale="log", yscale="log", xlabel="workers", ylabel=panel)
            axis.grid(visible=True, alpha=0.3)
            axis.legend(frameon=False)
        figure.suptitle("A fleet that starts with an empty cache; dashed: worked out from the largest one measured")
        figure.savefig(path, metadata={"Date": None})
        plt.close(figure)


def main() -> None:
    """Draw a file of results anew, beside it."""
    path = Path(sys.argv[1])
    draw(json.loads(path.read_text()), path.with_suffix(".svg"))


if __name__ == "__main__":
    main()
