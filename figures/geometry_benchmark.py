"""How the time of the curves grows. Reads results/benchmark_geometry.json; of its seconds it only fits the slopes.

The result file is that of ``bin/benchmark geometry --out figures/results/benchmark_geometry.json``.
"""

import json
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, StrMethodFormatter

from geomem.plots import style

HERE = Path(__file__).parent
LABELS = {"points": "training points", "dim": "dimensions", "levels": "noise levels", "queries": "queries per curve"}


def draw(document: dict) -> Figure:
    """Seconds against each quantity, medians with smallest and largest, and the power of it that fits best."""
    scaling, machine = document["parts"]["scaling"], document["machine"]
    with style.look():
        figure = style.new_figure(9, 2.9)
        for axes, (name, rows) in zip(figure.subplots(1, 4, sharey=True), scaling["series"].items(), strict=True):
            value = np.array([row["value"] for row in rows])
            low, median, high = (np.array([row["seconds"][part] for row in rows]) for part in ("min", "median", "max"))
            axes.errorbar(value, median, (median - low, high - median), fmt="o", capsize=3, color=style.BLUE)
            slope, start = np.polyfit(np.log(value), np.log(median), 1)
            axes.plot(value, np.exp(start) * value**slope, color=style.GREY, zorder=0)
            axes.set(xscale="log", yscale="log", xlabel=LABELS[name], title=f"power {slope:.2f}")
            axes.set_xticks(value, [f"{tick:,}" for tick in value], minor=False, rotation=45)
            axes.minorticks_off()
        figure.axes[0].set_ylabel("seconds")
        figure.axes[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        figure.axes[0].yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        base = ", ".join(f"{number:,} {LABELS[name]}" for name, number in scaling["base"].items())
        figure.suptitle(f"{base}; {machine['gpu'] or machine['cpu']}, threads: {machine['threads']}", fontsize=9)
    return figure


if __name__ == "__main__":
    draw(json.loads((HERE / "results" / "benchmark_geometry.json").read_text())).savefig(
        HERE / "geometry-benchmark.png", dpi=150)
