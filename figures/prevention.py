"""Leaning against quality, for each way. Reads results/prevention.json, computes nothing."""

import json
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

from geomem.plots.style import COLOURS, GREY, look, new_figure, plain_log_axis

HERE = Path(__file__).parent
WAYS: dict[tuple[str, str], dict[str, Any]] = {
    ("none", "last"): {"marker": "o", "ms": 6, "color": "0.25", "label": "no gap, last weights, after checkpoints"},
    ("none", "early stop"): {"marker": "s", "ms": 7, "color": COLOURS[0], "label": "no gap, one early stop"},
    ("none", "per level"): {"marker": "D", "ms": 7, "color": COLOURS[2], "label": "no gap, best weights per level"},
    ("stop at 3% copies", "half the steps"): {"marker": "^", "ms": 8, "color": COLOURS[1],
                                              "label": "half the steps at which copies appear"},
    ("gap auto", "last"): {"marker": "X", "ms": 8, "color": COLOURS[4], "label": "gap auto, last weights"},
    ("ci auto", "last"): {"marker": "P", "ms": 8, "color": COLOURS[3], "label": "ci auto, last weights"},
    ("dummy class", "last"): {"marker": "v", "ms": 7, "color": COLOURS[5], "label": "dummy class, last weights"}}
TITLES = {"digits": "200 digits, 8 x 8", "ecg": "500 beats of ECG5000", "faces16": "256 grey faces, 16 x 16",
          "cars16": "128 cars of CIFAR-10, 16 x 16", "pokemon16": "128 Pokemon, 16 x 16",
          "flowers16": "128 flowers, 16 x 16"}


def draw(rows: list[dict[str, Any]], trainings: list[dict[str, Any]]) -> Figure:
    """A panel for each set: Frechet distance against leaning, means over the seeds large, single seeds faint; a thin
    line along the checkpoints of the plain training. Trainings of versions that did not measure leaning are left out.
    """
    shown = [row for row in rows if (row["way"], row["weights"]) in WAYS and row.get("leaning")]
    with look():
        figure = new_figure(10.5, 6.8)
        for axes, name in zip(figure.subplots(2, 3).flat, TITLES, strict=True):
            of_set = [row for row in shown if row["set"] == name]
            axes.set_title(TITLES[name] + ("" if of_set else "; not measured"))
            for row in sorted(of_set, key=lambda row: list(WAYS).index((row["way"], row["weights"]))):
                kind = WAYS[row["way"], row["weights"]]
                seeds = [ends[-1] for training in trainings
                         if (training["set"], training["way"]) == (row["set"], row["way"])
                         and (ends := [at for at in training.get("rows", []) if at["weights"] == row["weights"]])]
                axes.plot([at["leaning"]["share"] for at in seeds if "leaning" in at],
                          [at["quality"]["frechet"] for at in seeds if "leaning" in at],
                          kind["marker"], ms=.6 * kind["ms"], color=kind["color"], alpha=.35, mew=0)
                path = [at for at in row["along"] if row["way"] == "none" and at["leaning"]] or [row]
                x, y = ([at[part]["mean"] for at in path] for part in ("leaning", "frechet"))
                axes.plot(x, y, "-o", ms=3, lw=.8, color=kind["color"])
                axes.plot(x[-1], y[-1], **kind, ls="", zorder=4)
            if not of_set:
                continue
            axes.axvline(.5, color=GREY, ls="--", lw=1, label="owes the training points nothing")
            axes.axhline(of_set[0]["floor"], color=GREY, ls=":", lw=1.2, label="two halves of the held-out data")
            axes.set_yscale("log")
            plain_log_axis(axes.yaxis)
            axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        left = min(axes.get_xlim()[0] for axes in figure.axes)
        for axes in figure.axes:
            axes.set_xlim(left, 1.02)
        for axes in figure.axes[3:]:
            axes.set_xlabel("nearer to training than to unseen points")
        for axes in figure.axes[::3]:
            axes.set_ylabel("Frechet distance in pixels")
        named = {label: handle for axes in reversed(figure.axes)
                 for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)}
        figure.legend(named.values(), named, loc="outside lower center", ncols=3, fontsize=8.5)
    return figure


if __name__ == "__main__":
    document = json.loads((HERE / "results" / "prevention.json").read_text())
    draw(document["rows"], document["trainings"]).savefig(HERE / "prevention-leaning.png", dpi=140)
