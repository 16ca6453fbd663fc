"""Largest against self weight. Reads results/reproduce_self_weight.json, computes nothing."""

from collections.abc import Mapping
from typing import Any

from matplotlib.figure import Figure
from reproduce_common import caption, save

from geomem.plots.style import BLUE, ORANGE, look, new_figure, sigma_axis


def draw(document: Mapping[str, Any]) -> Figure:
    """Both curves with their bands."""
    result, settings = document["result"], document["settings"]
    with look():
        figure = new_figure(6.2, 4)
        axes = figure.subplots()
        for name, colour, label in (("max_posterior_weight", BLUE, "largest weight W"),
                                    ("self_posterior_weight", ORANGE, "self weight")):
            part = result[name]
            axes.plot(result["sigma"], part["estimate"], ".-", color=colour, label=label)
            axes.fill_between(result["sigma"], part["low"], part["high"], color=colour, alpha=.25, lw=0)
        axes.set(ylabel="mean posterior weight", ylim=(-.03, 1.03))
        sigma_axis(axes)
        axes.legend()
        figure.suptitle(caption(document, f"{settings['points']} points, {settings['draws']} draws each, "
                                f"of {settings['n_train']:,}"), fontsize=10)
    return figure


if __name__ == "__main__":
    save(draw, "self_weight")
