"""The picture of the experiments ci-ecg5000, ci-pokemon and ci-flowers; their scripts are beside this file."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from reproduce_common import caption

from geomem.plots.style import BLUE, COLOURS, GREY, look, new_figure

MAPS = (("mean_distance", "mean distance to the training set"), ("w1_1", "Wasserstein-1, component 1"),
        ("js_values", "Jensen-Shannon, all values"))


def draw(document: Mapping[str, Any]) -> Figure:
    """Contributions of some intervals, the distance over location and width, and three figures for every pair."""
    result = document["result"]
    tuned, base = result["rows"][1:], result["rows"][0]
    with look():
        figure = new_figure(11, 6.6)
        (first, location, width), maps = figure.subplots(2, 3)
        contributions(first, result["contributions"])
        for axes, key, x, label in (
                (location, "mean", [(row["c_low"] + row["c_high"]) / 2 for row in tuned], "mean location (timestep)"),
                (width, "width", [row["c_high"] - row["c_low"] for row in tuned], "width (timesteps)")):
            y, found = [row["mean_distance"] for row in tuned], result["correlations"]["mean_distance"][key]
            axes.errorbar(x, y, [[row["mean_distance"] - row["mean_distance_low"] for row in tuned],
                                 [row["mean_distance_high"] - row["mean_distance"] for row in tuned]],
                          fmt="o", ms=3, lw=.8, color=BLUE)
            axes.axhline(base["mean_distance"], color=GREY, ls="--", lw=1, label="before fine-tuning")
            axes.set(xlabel=label, title=f"r = {found['r']:+.2f}, p = {found['p']:.2g}")
        location.set_ylabel("mean distance to the training set")
        location.legend(fontsize=8)
        for axes, (name, title) in zip(maps, MAPS, strict=True):
            heat(figure, axes, tuned, name)
            axes.set(xlabel="lower end", ylabel="upper end", title=title)
        figure.suptitle(caption(document, f"{len(tuned)} intervals"), fontsize=10)
    return figure


def contributions(axes: Axes, laws: Mapping[str, Any]) -> None:
    """C(t) = p(t) SNR(t)."""
    for (name, values), colour in zip(list(laws.items())[1:], COLOURS, strict=False):
        axes.plot(laws["timestep"], values, color=colour, label=name)
    axes.set(yscale="log", xlabel="timestep", title="contribution p(t) SNR(t)")
    axes.legend(fontsize=8)


def heat(figure: Figure, axes: Axes, rows: list[Mapping[str, Any]], name: str) -> None:
    """One square per pair."""
    ends = sorted({row["c_low"] for row in rows} | {row["c_high"] for row in rows})
    values = np.full((len(ends), len(ends)), np.nan)
    for row in rows:
        values[ends.index(row["c_high"]), ends.index(row["c_low"])] = row[name]
    image = axes.imshow(values, origin="lower", cmap="viridis")
    axes.grid(False)
    axes.set_xticks(range(len(ends)), ends, fontsize=7, rotation=90)
    axes.set_yticks(range(len(ends)), ends, fontsize=7)
    figure.colorbar(image, ax=axes, shrink=.85)
