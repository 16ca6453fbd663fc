"""Memorization against quality along the training, for each way. Reads results/prevention.json, computes nothing."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, PercentFormatter, StrMethodFormatter

from geomem.plots.style import look, new_figure

HERE = Path(__file__).parent
WAYS = {"none": "0.35", "gap auto": "C3", "ci auto": "C0", "dummy class": "C1"}
CHOSEN: dict[tuple[str, str], dict[str, Any]] = {
    ("none", "per level"): {"marker": "D", "ms": 7, "color": "C2", "label": "none, best weights per level"},
    ("stop at 3% copies", "half the steps"): {"marker": "^", "ms": 8, "color": "C4",
                                              "label": "none, half the steps until copies appear"},
    ("closed levels", "last"): {"marker": "s", "ms": 6, "color": "C5", "label": "levels closed while training"}}
TITLES = {"digits": "200 digits, 8 x 8", "ecg": "500 beats of ECG5000", "faces16": "256 grey faces, 16 x 16",
          "cars16": "128 cars of CIFAR-10, 16 x 16", "pokemon16": "128 Pokemon, 16 x 16",
          "flowers16": "128 flowers, 16 x 16"}


def draw(rows: list[dict[str, Any]]) -> Figure:
    """A panel for each set, means over the seeds: a line along the checkpoints of each way, the last one large; a
    star for held-out data, whose halves are smaller than what the others are made of.
    """
    with look():
        figure = new_figure(10.5, 6.8)
        for axes, name in zip(figure.subplots(2, 3).flat, TITLES, strict=True):
            for row in (row for row in rows if row["set"] == name):
                at = row["along"] or [row]
                x, y = ([point[part]["mean"] for point in at] for part in ("frechet", "memorized"))
                if row["weights"] == "last" and row["way"] in WAYS:
                    colour = WAYS[row["way"]]
                    axes.plot(x, y, "-", lw=1, color=colour, marker=".", ms=5)
                    axes.plot(x[-1], y[-1], "o", ms=7, color=colour, label=row["way"])
                elif (row["way"], row["weights"]) in CHOSEN:
                    axes.plot(x[-1], y[-1], **CHOSEN[row["way"], row["weights"]], ls="", zorder=4)
            floor = next(row["floor"] for row in rows if row["set"] == name)
            axes.plot(floor, 0, "*", ms=12, color="0.1", label="two halves of the held-out data", ls="")
            seeds = {len(row["seeds"]) for row in rows if row["set"] == name
                     and (row["way"] in WAYS or (row["way"], row["weights"]) in CHOSEN)}
            axes.set(title=f"{TITLES[name]}; {' or '.join(map(str, sorted(seeds)))} seeds", xscale="log",
                     ylim=(-0.04, 1.04))
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
            axes.xaxis.set_minor_formatter(NullFormatter())
            axes.yaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        for axes in figure.axes[3:]:
            axes.set_xlabel("Frechet distance in pixels")
        for axes in figure.axes[::3]:
            axes.set_ylabel("memorized share")
        figure.legend(*figure.axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=4, fontsize=8.5)
    return figure


if __name__ == "__main__":
    document = json.loads((HERE / "results" / "prevention.json").read_text())
    draw(document["rows"]).savefig(HERE / "prevention.png", dpi=140)
