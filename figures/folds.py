"""Leaning against quality of cross-fitted networks beside one. Reads results/folds-*.json, computes nothing."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MultipleLocator, PercentFormatter
from prevention import TITLES

from geomem.plots.style import COLOURS, GREY, look, new_figure

HERE = Path(__file__).parent
TRAININGS: dict[str, dict[str, Any]] = {
    "one network": {"color": COLOURS[0], "marker": "s"}, "4 folds": {"color": COLOURS[1], "marker": "D"},
    "8 folds": {"color": COLOURS[3], "marker": "o"}, "2 x 4 folds": {"color": COLOURS[4], "marker": "v"}}
WEIGHTS = {"early-stop": ", one early stop", "per-level": ", best weights per level"}


def draw(documents: dict[str, dict[str, Any]]) -> Figure:
    """A panel for each set: leaning against the Frechet distance of every network, by early stop (hollow) or best
    weights per level (filled), of seed 0 with 95% intervals over its samples, of other seeds faint. Cross-fitted
    networks are routed by argmax.
    """
    with look():
        figure = new_figure(10.5, 6.8)
        for axes, name in zip(figure.subplots(2, 3).flat, TITLES, strict=True):
            axes.set_title(TITLES[name] + ("" if name in documents else "; not measured"))
            axes.axvline(.5, color=GREY, ls="--", lw=1, label="owes the training points nothing")
            axes.xaxis.set_major_locator(MultipleLocator(0.05))
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
            for row in documents[name]["rows"] if name in documents else ():
                if row["training"] not in TRAININGS or row["weights"] == "last" or row["routing"] == "soft":
                    continue
                kind = TRAININGS[row["training"]]
                leaning, quality = row["leaning"], row["quality"]
                x, y = leaning["share"], quality["frechet"]
                hollow = row["weights"] == "early-stop"
                first = row["seed"] == 0
                axes.errorbar(x, y, xerr=[[x - leaning["low"]], [leaning["high"] - x]] if first else None,
                              yerr=[[y - quality["frechet_low"]], [quality["frechet_high"] - y]] if first else None,
                              **kind, mfc="white" if hollow else kind["color"], ms=7 if first else 4, lw=1,
                              alpha=1 if first else .4, ls="",
                              label=row["training"] + WEIGHTS[row["weights"]] if first else None)
        for axes in figure.axes[3:]:
            axes.set_xlabel("nearer to training points")
        for axes in figure.axes[::3]:
            axes.set_ylabel("Frechet distance")
        named = {label: handle for axes in figure.axes
                 for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(named.values(), named, loc="outside lower center", ncols=3, fontsize=8.5)
    return figure


if __name__ == "__main__":
    found = (json.loads(path.read_text()) for path in sorted((HERE / "results").glob("folds-*.json")))
    draw({document["set"]: document for document in found}).savefig(HERE / "cross-fitted.png", dpi=140)
