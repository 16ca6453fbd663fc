"""Memorization against quality for each gap. Reads results/reproduce_timestep_gaps.json, computes nothing."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from reproduce_common import caption, images_of, save

from geomem.plots.style import BLUE, GREY, look, new_figure


def draw(document: Mapping[str, Any]) -> Figure:
    """One point per gap with 95% intervals; the Pareto front as a line."""
    result = document["result"]
    with look():
        figure = new_figure(6.2, 4.4)
        axes = figure.subplots()
        for gap, row in result["gaps"].items():
            x, y = row["frechet"], row["memorized"]
            axes.errorbar(x, y, xerr=[[x - row["frechet_low"]], [row["frechet_high"] - x]],
                          yerr=[[y - row["low"]], [row["high"] - y]], fmt="o", ms=4, capsize=2,
                          color=BLUE if gap in result["front"] else GREY)
            axes.annotate(gap, (x, y), xytext=(3, 5), textcoords="offset points", fontsize=8, rotation=40)
        front = sorted((result["gaps"][gap]["frechet"], result["gaps"][gap]["memorized"]) for gap in result["front"])
        axes.plot(*zip(*front, strict=True), "--", color=BLUE, lw=1, label="Pareto front of the estimates")
        axes.set(xlabel="Frechet distance in pixels", ylabel="memorized share", ylim=(0, None))
        axes.legend()
        figure.suptitle(caption(document, images_of(document["settings"])), fontsize=10)
    return figure


if __name__ == "__main__":
    save(draw, "timestep_gaps")
