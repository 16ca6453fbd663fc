"""Conditional against optimal flow field. Reads results/reproduce_flow_cosine.json, computes nothing."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from reproduce_common import caption, save

from geomem.plots.style import BLUE, GREEN, ORANGE, look, new_figure


def draw(document: Mapping[str, Any]) -> Figure:
    """Cosine, bound and the share of the points where the bound says something, over flow time."""
    result = document["result"]
    with look():
        figure = new_figure(6.2, 4)
        axes = figure.subplots()
        axes.plot(result["time"], result["cosine"], ".-", color=BLUE, label="cosine, measured")
        axes.plot(result["time"], result["bound"], "--", color=ORANGE, label="lower bound, mean over points")
        axes.plot(result["time"], result["informative"], ":", color=GREEN, label="share of points with a bound")
        axes.set(xlabel="flow time t (0 noise, 1 data)", ylim=(-1.05, 1.05))
        axes.legend(loc="lower right")
        figure.suptitle(caption(document, "conditional against optimal flow field"), fontsize=10)
    return figure


if __name__ == "__main__":
    save(draw, "flow_cosine")
