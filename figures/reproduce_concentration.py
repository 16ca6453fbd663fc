"""Theorem 4.2 beside the measured weight. Reads results/reproduce_concentration.json, computes nothing."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from reproduce_common import caption, save

from geomem.plots.style import BLUE, GREEN, GREY, ORANGE, look, new_figure, sigma_axis


def draw(document: Mapping[str, Any]) -> Figure:
    """Self weight, and the shares of points for which the theorem speaks."""
    result, settings = document["result"], document["settings"]
    with look():
        figure = new_figure(6.4, 4)
        axes = figure.subplots()
        axes.plot(result["sigma"], result["self_weight"], color=BLUE, lw=2, label="mean self weight, measured")
        axes.plot(result["sigma"], result["share_concentrated"], "--", color=GREEN,
                  label=f"points with weight surely at least {settings['q']:g}")
        axes.plot(result["sigma"], result["share_spread"], "--", color=ORANGE,
                  label=f"points with weight surely at most {1 - settings['q']:.2g}")
        for name in ("concentrated", "spread"):
            axes.axvline(result[name], color=GREY, lw=.8)
        axes.set(ylabel="weight, share of points", ylim=(-.03, 1.03))
        sigma_axis(axes)
        figure.legend(*axes.get_legend_handles_labels(), loc="outside lower center", fontsize=8)
        figure.suptitle(caption(document, f"means of the thresholds {result['concentrated']:.3g} and "
                                f"{result['spread']:.3g}"), fontsize=10)
    return figure


if __name__ == "__main__":
    save(draw, "concentration")
